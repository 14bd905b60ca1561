"""CudaKernels as a whole: output and every gradient against the reference.

On a GPU, everything is real. Without one, the three CUDA kernels are emulated and stand in a backend whose other
steps are plain torch: it shows that the steps fit together, and that what is kept between the passes is enough.
"""

import ctypes
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from moe_trainer.moe import backends
from moe_trainer.moe.backends import Entry
from moe_trainer.moe.cuda import refusal
from moe_trainer.moe.dispatch import Dispatch, dispatch_slots
from moe_trainer.moe.kernels import Case, Inputs

from ..conftest import ROUTINGS, Batch, random_batch
from .emulator import Emulator, needs_compiler

if (
    TYPE_CHECKING
):  # modules with Triton kernels are imported in the tests: once imported, they can't be interpreted
    from moe_trainer.moe.triton.tiles import Schedule

#: ‖error‖ / ‖reference in fp64‖: what rounding to bf16 leaves, in h, a and the results.
TOLERANCE = 1.2e-2

HOPPER = Case("cuda", torch.bfloat16, 4096, 2048, 768, 128, 8, capability=(9, 0))


def assert_equals_reference(batch: Batch, device: str, recompute: bool) -> None:
    batch = batch.to(torch.bfloat16)
    expected = batch.to(torch.float64).run("reference")
    found = batch.to(torch.bfloat16, device).run("cuda", recompute)  # type: ignore[arg-type]
    for name, tensor in expected.items():
        error = (found[name].double().cpu() - tensor).norm() / tensor.norm()
        assert error < TOLERANCE, f"{name}: {error:.2e}"


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch, libraries: dict[int, ctypes.CDLL]) -> None:
    """A backend ``cuda`` that runs here."""
    from moe_trainer.moe.cuda import kernels as cuda_kernels

    for name, plain in {
        "dispatch_slots": dispatch_slots,
        "combine": combine,
        "product": product,
        "d_down": lambda dy_ND, rows_SF, schedule: d_weights(by_place(dy_ND, schedule), rows_SF, schedule),
        "d_gate_up": lambda rows_S2F, x_ND, schedule: d_weights(rows_S2F, by_place(x_ND, schedule), schedule),
    }.items():
        monkeypatch.setattr(cuda_kernels, name, plain)
    kernels = cuda_kernels.CudaKernels(Emulator(libraries, cluster=2, late=True))
    monkeypatch.setitem(backends.ENTRIES, "cuda", Entry(lambda case: None, lambda: kernels))  # type: ignore[misc]


@needs_compiler
@pytest.mark.parametrize(("routing", "recompute"), list(zip(ROUTINGS, [False, True] * 2, strict=True)))
def test_emulated_output_and_every_gradient_are_those_of_the_reference(
    routing: str, recompute: bool, emulated: None
) -> None:
    batch = ROUTINGS[routing](random_batch(tokens=70, hidden=128, inner=64, experts=3, active=2))
    assert_equals_reference(batch, "cpu", recompute)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize(
    ("tokens", "active", "recompute"), [(1, 1, False), (1000, 2, True), (5000, 8, False)]
)
@pytest.mark.parametrize("routing", ROUTINGS)
def test_output_and_every_gradient_are_those_of_the_reference(
    routing: str, tokens: int, active: int, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moe_trainer.moe.cuda.kernels import CudaKernels

    monkeypatch.setitem(backends.ENTRIES, "cuda", Entry(refusal, CudaKernels))  # type: ignore[misc]
    batch = random_batch(tokens=tokens, hidden=320, inner=192, experts=9, active=active)
    assert_equals_reference(ROUTINGS[routing](batch), "cuda", recompute)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_captured_forward_pass_follows_the_routing_that_it_is_replayed_with() -> None:
    from moe_trainer.moe.cuda.kernels import CudaKernels

    kernels, batch = CudaKernels(), random_batch(tokens=1000, hidden=320, inner=192, experts=9)
    first, second = (b.to(torch.bfloat16, "cuda") for b in (batch, ROUTINGS["all to one"](batch)))
    experts_NK = first.experts_NK.clone()

    def forward() -> Tensor:
        dispatch = kernels.dispatch(experts_NK, 9)
        inputs = Inputs(first.x_ND, first.weights_NK, first.gate_up_E2FD, first.down_EDF, dispatch)
        return kernels.forward(inputs, keep=False)[0]

    forward()  # compiles, loads, and finds Triton's tiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y_ND = forward()
    for routed in (second, first):
        experts_NK.copy_(routed.experts_NK)
        graph.replay()
        assert torch.equal(y_ND, forward())


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (replace(HOPPER, device="cpu"), "on 'cpu'"),
        (replace(HOPPER, capability=(8, 0)), "this GPU has 8.0"),
        (replace(HOPPER, capability=(10, 0)), "this GPU has 10.0"),
        (replace(HOPPER, dtype=torch.float32), "x is torch.float32"),
        (replace(HOPPER, hidden=100), "hidden size 100 is not a multiple of 64"),
        (replace(HOPPER, inner=96), "inner width 96 is not a multiple of 64"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason_and_the_remedy(case: Case, reason: str) -> None:
    found = refusal(case)
    assert found and reason in found and "use backend" in found


def test_a_missing_package_is_refused_and_a_hopper_gpu_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(HOPPER) is None
    monkeypatch.setattr("moe_trainer.moe.cuda.find_spec", lambda name: None)
    assert "cuda-bindings is missing" in (refusal(HOPPER) or "")


def by_place(rows_N: Tensor, schedule: "Schedule") -> Tensor:
    return rows_N[schedule.dispatch.slots_S // schedule.dispatch.active]


def experts_of(dispatch: Dispatch) -> list[slice]:
    return [slice(*bounds) for bounds in pairwise(dispatch.offsets_E1.tolist())]


def combine(rows_SD: Tensor, dispatch: Dispatch, weights_NK: Tensor | None = None) -> Tensor:
    kept = (dispatch.places_S < dispatch.offsets_E1[-1])[:, None]
    rows_SD = torch.where(kept, rows_SD[dispatch.places_S].float(), 0)
    rows_SD = rows_SD if weights_NK is None else rows_SD * weights_NK.flatten()[:, None]
    return rows_SD.view(-1, dispatch.active, rows_SD.shape[1]).sum(dim=1).bfloat16()


def product(rows_SI: Tensor, weights_E: Tensor, schedule: "Schedule", transposed: bool) -> Tensor:
    assert transposed
    out = rows_SI.new_empty(rows_SI.shape[0], weights_E.shape[2])
    for expert, rows in enumerate(experts_of(schedule.dispatch)):
        out[rows] = (rows_SI[rows].float() @ weights_E[expert].float()).bfloat16()
    return out


def d_weights(left_SH: Tensor, right_SW: Tensor, schedule: "Schedule") -> Tensor:
    rows = experts_of(schedule.dispatch)
    return torch.stack([(left_SH[r].float().T @ right_SW[r].float()).bfloat16() for r in rows])
