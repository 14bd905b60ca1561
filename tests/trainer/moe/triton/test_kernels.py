"""The whole of TritonKernels: output and every gradient against the reference."""

import pytest
import torch

from moe_trainer.moe import backends
from moe_trainer.moe.backends import Entry
from moe_trainer.moe.triton.kernels import Tiles, TritonKernels
from moe_trainer.moe.triton.tiles import Tile

from ..conftest import ROUTINGS, Batch, random_batch
from .conftest import DEVICE

#: Several tiles in each direction of even a tiny product, and none that fits without a rest.
TINY = (Tile(rows=16, columns=32, depth=32, warps=4, stages=2),)

#: ‖error‖ / ‖reference in fp64‖ of the output and of each gradient.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1.2e-2}


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the triton backend run where these tests do."""
    kernels = TritonKernels(Tiles(TINY, TINY, TINY, TINY))
    monkeypatch.setitem(backends.ENTRIES, "triton", Entry(lambda case: None, lambda: kernels))


def assert_equals_reference(batch: Batch, dtype: torch.dtype, recompute: bool = False) -> None:
    expected = batch.run("reference")
    found = batch.to(dtype, DEVICE).run("triton", recompute)
    for name, tensor in expected.items():
        error = (found[name].double().cpu() - tensor).norm() / tensor.norm()
        assert error < TOLERANCES[dtype], f"{name}: {error:.2e}"


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize(("active", "recompute"), [(1, False), (2, True), (5, False)])
def test_output_and_every_gradient_are_those_of_the_reference(
    routing: str, active: int, recompute: bool, dtype: torch.dtype
) -> None:
    batch = ROUTINGS[routing](random_batch(tokens=19, hidden=48, inner=40, active=active))
    assert_equals_reference(batch, dtype, recompute)


def test_eight_of_many_in_layer_experts(dtype: torch.dtype) -> None:
    assert_equals_reference(random_batch(tokens=7, hidden=32, inner=16, experts=13, active=8), dtype)


def test_a_token_alone(dtype: torch.dtype) -> None:
    assert_equals_reference(random_batch(tokens=1, hidden=32, inner=16), dtype)
