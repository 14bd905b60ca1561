from typing import Any

import pytest
import torch

from moe_trainer.moe.dispatch import Dispatch
from moe_trainer.moe.experts import reference_experts
from moe_trainer.moe.kernels import Inputs
from moe_trainer.moe.triton.dispatch import dispatch_slots
from moe_trainer.moe.triton.kernels import Tiles, TritonKernels
from moe_trainer.moe.triton.skinny import TILES, skinny_forward
from moe_trainer.moe.triton.tiles import Tile

from ..conftest import ROUTINGS, Batch, random_batch
from .conftest import DEVICE, DTYPES, needs_gpu

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def dispatched(batch: Batch) -> Dispatch:
    return dispatch_slots(batch.experts_NK, batch.gate_up_E2FD.shape[0])


def assert_as_reference(batch: Batch, dtype: torch.dtype) -> None:
    exact, batch = batch.to(torch.float64), batch.to(dtype, DEVICE)
    inputs = (batch.x_ND, batch.weights_NK, batch.gate_up_E2FD, batch.down_EDF)
    y_ND = skinny_forward(*inputs, dispatched(batch))
    assert y_ND.dtype == dtype
    expected_ND = reference_experts(
        exact.x_ND, exact.experts_NK, exact.weights_NK, exact.gate_up_E2FD, exact.down_EDF
    )
    error = (y_ND.cpu().double() - expected_ND).norm() / expected_ND.norm().clamp(min=1e-9)
    assert error < TOLERANCE[dtype]


@pytest.mark.parametrize("routing", ROUTINGS)
def test_the_output_is_that_of_the_reference(routing: str, dtype: torch.dtype) -> None:
    assert_as_reference(ROUTINGS[routing](random_batch(tokens=19, hidden=24, inner=40, experts=5)), dtype)


@pytest.mark.parametrize("active", range(1, 9))
def test_any_number_of_choices(active: int, dtype: torch.dtype) -> None:
    assert_as_reference(random_batch(tokens=3, experts=11, active=active), dtype)


def test_one_token(dtype: torch.dtype) -> None:
    assert_as_reference(random_batch(tokens=1, hidden=136, inner=72, experts=12, active=3), dtype)


def test_more_rows_of_one_in_layer_expert_than_a_program_holds(dtype: torch.dtype) -> None:
    # 100 rows go to the last of 9, of which a program holds 64.
    assert_as_reference(ROUTINGS["all to one"](random_batch(tokens=100, experts=9, active=2)), dtype)


@pytest.mark.parametrize("tile", TILES)
def test_every_tile_computes_the_same(tile: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_trainer.moe.triton.skinny.TILES", (tile,))
    # Some tiles of fp32 are more than a GPU's shared memory: where it can, this runs in bf16.
    assert_as_reference(random_batch(tokens=5, hidden=72, inner=136, experts=3), DTYPES[-1])


def test_all_slots_may_be_dropped(dtype: torch.dtype) -> None:
    batch = random_batch(tokens=4).to(dtype, DEVICE)
    dropped = dispatch_slots(torch.full_like(batch.experts_NK, 5), experts=5)
    y_ND = skinny_forward(batch.x_ND, batch.weights_NK, batch.gate_up_E2FD, batch.down_EDF, dropped)
    assert not y_ND.any()


@pytest.mark.parametrize(("most", "skinny"), [(18, False), (19, True)])
def test_the_backend_decodes_with_it_up_to_the_most_tokens(
    most: int, skinny: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def recorded(*inputs: Any) -> torch.Tensor:
        taken.append(True)
        return skinny_forward(*inputs)

    monkeypatch.setattr("moe_trainer.moe.triton.kernels.MOST_TOKENS", most)
    monkeypatch.setattr("moe_trainer.moe.triton.kernels.skinny_forward", recorded)
    tile = (Tile(rows=16, columns=32, depth=32, warps=4, stages=2),)
    batch = random_batch(tokens=19, hidden=48, inner=40).to(dtype, DEVICE)
    inputs = (batch.x_ND, batch.weights_NK, batch.gate_up_E2FD, batch.down_EDF)
    kernels = TritonKernels(Tiles(tile, tile, tile, tile))
    y_ND, kept = kernels.forward(Inputs(*inputs, dispatched(batch)), keep=False)
    assert bool(taken) is skinny and kept is None
    x_ND, *weights = (tensor.double() for tensor in inputs)
    expected_ND = reference_experts(x_ND, batch.experts_NK, *weights)
    assert (y_ND.double() - expected_ND).norm() / expected_ND.norm() < TOLERANCE[dtype]


@needs_gpu
@pytest.mark.parametrize("tokens", [1, 16, 64, 256])
def test_a_cuda_graph_computes_with_what_it_is_given_later(tokens: int) -> None:
    first, later = (
        random_batch(tokens, 256, 128, 16, 4, seed=seed).to(torch.bfloat16, DEVICE) for seed in (0, 1)
    )
    weights = (first.gate_up_E2FD, first.down_EDF)
    skinny_forward(first.x_ND, first.weights_NK, *weights, dispatched(first))  # Compiled and timed.
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = skinny_forward(first.x_ND, first.weights_NK, *weights, dispatched(first))
    for name in ("x_ND", "weights_NK", "experts_NK"):
        getattr(first, name).copy_(getattr(later, name))
    graph.replay()
    expected = skinny_forward(first.x_ND, first.weights_NK, *weights, dispatched(first))
    assert torch.equal(captured, expected)
