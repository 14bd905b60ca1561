"""The whole of TritonKernels: output and every gradient against the reference, and what it refuses."""

from dataclasses import replace

import pytest
import torch

from moe_trainer.moe import backends
from moe_trainer.moe.backends import Entry
from moe_trainer.moe.experts import swiglu_experts
from moe_trainer.moe.kernels import Case, Inputs
from moe_trainer.moe.triton import refusal
from moe_trainer.moe.triton.kernels import Tiles, TritonKernels
from moe_trainer.moe.triton.tiles import Tile

from ..conftest import ROUTINGS, Batch, random_batch
from .conftest import DEVICE, needs_gpu

#: Rows of dropped slots hold anything, numbers that overflow as well, and yield nothing that is stored.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

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


def test_a_few_tokens_that_are_recomputed_keep_the_bits_of_those_that_are_not(dtype: torch.dtype) -> None:
    batch = random_batch(tokens=7, hidden=48, inner=32).to(dtype, DEVICE)
    kept, again = batch.run("triton"), batch.run("triton", recompute=True)
    assert all(torch.equal(again[name], tensor) for name, tensor in kept.items())


def test_eight_of_many_in_layer_experts(dtype: torch.dtype) -> None:
    assert_equals_reference(random_batch(tokens=7, hidden=32, inner=16, experts=13, active=8), dtype)


def test_a_token_alone(dtype: torch.dtype) -> None:
    assert_equals_reference(random_batch(tokens=1, hidden=32, inner=16), dtype)


def test_a_batch_without_tokens(dtype: torch.dtype) -> None:
    found = random_batch(tokens=0, hidden=32, inner=16).to(dtype, DEVICE).run("triton")
    assert found["y_ND"].shape == (0, 32) and found["weights_NK"].shape == (0, 2)
    assert not found["gate_up_E2FD"].any() and not found["down_EDF"].any()


def test_tensors_may_lie_anywhere_in_memory(dtype: torch.dtype) -> None:
    batch = random_batch(tokens=5, hidden=32, inner=16)
    expected = batch.run("reference")["y_ND"]
    batch = batch.to(dtype, DEVICE)
    shifted = torch.empty(batch.down_EDF.numel() + 1, dtype=dtype, device=DEVICE)[
        1:
    ]  # no multiple of 16 bytes
    down_EDF = shifted.view_as(batch.down_EDF).copy_(batch.down_EDF)
    x_ND = batch.x_ND.T.contiguous().T
    inputs = (batch.experts_NK, batch.weights_NK, batch.gate_up_E2FD, down_EDF)
    error = swiglu_experts(x_ND, *inputs, backend="triton").double().cpu() - expected
    assert error.norm() / expected.norm() < TOLERANCES[dtype]


CASE = Case(
    "cuda", torch.bfloat16, tokens=64, hidden=2048, inner=768, experts=128, active=8, capability=(9, 0)
)


@pytest.mark.parametrize("capability", [(9, 0), (10, 0), (10, 3)])
def test_it_runs_on_hopper_and_blackwell(capability: tuple[int, int]) -> None:
    assert refusal(replace(CASE, capability=capability)) is None


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (
            replace(CASE, device="cpu"),
            "it needs a CUDA device, and the tensors are on 'cpu': use backend 'torch'",
        ),
        (
            replace(CASE, capability=(8, 0)),
            "it needs compute capability 9.x or 10.x, and this device has 8.0: use backend 'torch'",
        ),
        (
            replace(CASE, dtype=torch.float32),
            "it computes in bfloat16 or float16, not torch.float32: convert the layer, or use backend 'torch'",
        ),
        (
            replace(CASE, inner=24),
            "it needs sizes that are multiples of 16, and inner is 24: use backend 'torch'",
        ),
    ],
)
def test_a_refusal_names_the_reason_and_what_to_do(case: Case, reason: str) -> None:
    assert refusal(case) == reason


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_trainer.moe.triton.find_spec", lambda name: None)
    expected = "the Python package triton is not installed: install it, or use backend 'torch'"
    assert refusal(CASE) == expected


@needs_gpu
def test_both_passes_in_a_cuda_graph_compute_with_what_they_are_given_later() -> None:
    batch = random_batch(tokens=300, hidden=256, inner=128, experts=16, active=4).to(torch.bfloat16, DEVICE)
    other = random_batch(tokens=300, hidden=256, inner=128, experts=16, active=4, seed=1)
    kernels = TritonKernels()
    weights = (batch.gate_up_E2FD, batch.down_EDF)

    def both_passes() -> tuple[torch.Tensor, ...]:
        dispatch = kernels.dispatch(batch.experts_NK, 16)
        inputs = Inputs(batch.x_ND, batch.weights_NK, *weights, dispatch)
        y_ND, h_S2F = kernels.forward(inputs, keep=True)
        assert h_S2F is not None
        return y_ND, *kernels.backward(inputs, batch.dy_ND, h_S2F)

    both_passes()  # times the tiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = both_passes()
    batch.x_ND.copy_(other.x_ND)
    batch.experts_NK.copy_(other.experts_NK)
    graph.replay()
    for found, expected in zip(captured, both_passes(), strict=True):
        assert torch.equal(found, expected)
