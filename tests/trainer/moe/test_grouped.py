"""The grouped products, by the path that torch has for them on a CPU."""

from dataclasses import replace

import pytest
import torch

from moe_trainer.moe import backends
from moe_trainer.moe.backends import Entry
from moe_trainer.moe.grouped import GroupedKernels, refusal
from moe_trainer.moe.kernels import Case
from moe_trainer.moe.looped import LoopedKernels

from .conftest import ROUTINGS, random_batch

TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 1.2e-2}


@pytest.fixture
def _everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the grouped products be what the torch backend is here."""
    monkeypatch.setitem(backends.ENTRIES, "torch", Entry(lambda case: None, GroupedKernels))


@pytest.mark.usefixtures("_everywhere")
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("active", "recompute"), [(1, False), (2, True), (3, False), (8, False)])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_output_and_every_gradient_are_those_of_the_reference(
    routing: str, active: int, recompute: bool, dtype: torch.dtype
) -> None:
    batch = ROUTINGS[routing](random_batch(tokens=37, hidden=24, inner=16, experts=9, active=active))
    expected = batch.run("reference")
    for name, tensor in batch.to(dtype).run("torch", recompute).items():
        error = (tensor.double() - expected[name]).norm() / expected[name].norm()
        assert error < TOLERANCES[dtype], f"{name}: {error:.2e}"


@pytest.mark.usefixtures("_everywhere")
def test_recomputation_changes_no_bit() -> None:
    batch = random_batch(tokens=67, inner=16).to(torch.bfloat16)
    kept, again = batch.run("torch"), batch.run("torch", recompute=True)
    assert all(torch.equal(again[name], tensor) for name, tensor in kept.items())


HOPPER = Case("cuda", torch.bfloat16, 64, 128, 64, 8, 2, capability=(9, 0))

REFUSALS = {
    "the grouped product needs a CUDA device of compute capability 8.0 or more": {"device": "cpu"},
    "the grouped product computes in torch.bfloat16, not torch.float32": {"dtype": torch.float32},
    "the grouped product needs a hidden size and an inner width that are multiples of 8": {"inner": 60},
    "the grouped product needs fewer than 1024 in-layer experts": {"experts": 1024},
    "the grouped product needs a token": {"tokens": 0},
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_case_that_the_grouped_product_cannot_compute_is_looped_over(reason: str) -> None:
    case = replace(HOPPER, **REFUSALS[reason])  # type: ignore[arg-type]
    assert refusal(case) == reason
    assert isinstance(backends.kernels("torch", case), LoopedKernels)


def test_elsewhere_the_torch_backend_computes_grouped_products() -> None:
    assert refusal(HOPPER) is None
    assert isinstance(backends.kernels("torch", HOPPER), GroupedKernels)
