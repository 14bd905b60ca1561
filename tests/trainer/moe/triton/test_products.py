"""Each grouped product by itself against its formula, in fp64."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.moe.dispatch import Dispatch, dispatch_slots
from moe_trainer.moe.triton import d_hidden, d_weights, product, tiles, up
from moe_trainer.moe.triton.tiles import Schedule, Tile

from ..conftest import ROUTINGS, random_batch
from .conftest import DEVICE

#: ‖error‖ / ‖value in fp64‖.
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 6e-3}

#: Below every size here and above it, so that there are several tiles, and rests.
TINY = (Tile(rows=16, columns=32, depth=32, warps=4, stages=2),)

#: What stands where nothing may be read: a result that has it, has read it.
NOTHING = float("nan")


@dataclass(frozen=True)
class Problem:
    """Rows in the order of the slots, weights, and the routing that orders them."""

    dispatch: Dispatch
    x_ND: Tensor
    rows_SF: Tensor
    weights_NK: Tensor
    gate_up_E2FD: Tensor
    down_EDF: Tensor

    @property
    def kept(self) -> int:
        """The places up to here are of slots that were not dropped."""
        return int(self.dispatch.offsets_E1[-1])

    @property
    def experts_S(self) -> list[int]:
        """The in-layer expert of each kept place."""
        counts_E = self.dispatch.offsets_E1.diff()
        return torch.arange(counts_E.numel(), device=DEVICE).repeat_interleave(counts_E).tolist()  # type: ignore[no-any-return]

    def by_token(self, rows_ND: Tensor) -> Tensor:
        """Return each kept place's row of its token."""
        return rows_ND[self.dispatch.slots_S[: self.kept].long() // self.dispatch.active]


@pytest.fixture(params=ROUTINGS)
def problem(request: pytest.FixtureRequest, dtype: torch.dtype) -> Problem:
    batch = ROUTINGS[request.param](random_batch(tokens=13, hidden=48, inner=40)).to(dtype, DEVICE)
    dispatch = dispatch_slots(batch.experts_NK, batch.gate_up_E2FD.shape[0])
    rows_SF = torch.randn(26, 40, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype)
    rows_SF[int(dispatch.offsets_E1[-1]) :] = NOTHING
    return Problem(dispatch, batch.x_ND, rows_SF, batch.weights_NK, batch.gate_up_E2FD, batch.down_EDF)


def assert_close(found: Tensor, expected: Tensor) -> None:
    error = (found.double() - expected).norm() / expected.norm()
    assert error < TOLERANCES[found.dtype], f"{error:.2e}"


def pre_activation(problem: Problem) -> Tensor:
    rows_SD = problem.by_token(problem.x_ND).double()
    return torch.einsum("sd,sfd->sf", rows_SD, problem.gate_up_E2FD.double()[problem.experts_S])


def down(problem: Problem) -> Tensor:
    weights = problem.down_EDF.double()[problem.experts_S]
    return torch.einsum("sf,sdf->sd", problem.rows_SF[: problem.kept].double(), weights)


def swiglu(h_S2F: Tensor) -> Tensor:
    gate_SF, up_SF = h_S2F.chunk(2, dim=-1)
    return F.silu(gate_SF) * up_SF


def test_up_writes_h_and_a_of_the_slots_that_were_not_dropped(problem: Problem) -> None:
    h_S2F, a_SF = problem.x_ND.new_full((26, 80), NOTHING), problem.x_ND.new_full((26, 40), NOTHING)
    up.up(problem.x_ND, problem.gate_up_E2FD, Schedule(problem.dispatch), h_S2F, a_SF, TINY)
    expected_S2F = pre_activation(problem)
    assert_close(h_S2F[: problem.kept], expected_S2F)
    assert_close(a_SF[: problem.kept], swiglu(expected_S2F))
    assert h_S2F[problem.kept :].isnan().all() and a_SF[problem.kept :].isnan().all()

    again_S2F = torch.empty_like(h_S2F)
    up.up(problem.x_ND, problem.gate_up_E2FD, Schedule(problem.dispatch), again_S2F, None, TINY)
    assert torch.equal(again_S2F[: problem.kept], h_S2F[: problem.kept])


def test_rows_times_weights(problem: Problem) -> None:
    rows_SD = product.product(problem.rows_SF, problem.down_EDF, Schedule(problem.dispatch), TINY)
    assert_close(rows_SD[: problem.kept], down(problem))


def test_rows_times_transposed_weights(problem: Problem) -> None:
    down_EFD = problem.down_EDF.mT.contiguous()
    found_SD = product.product(problem.rows_SF, down_EFD, Schedule(problem.dispatch), TINY, transposed=True)
    assert_close(found_SD[: problem.kept], down(problem))


def test_d_hidden_leads_back_through_down_and_swiglu(problem: Problem) -> None:
    h_S2F = torch.cat((problem.rows_SF, problem.rows_SF.flip(1)), dim=1)
    dy_ND = problem.x_ND
    dh_S2F, sa_SF, dweights_NK = d_hidden.d_hidden(
        dy_ND, h_S2F, problem.weights_NK, problem.down_EDF, Schedule(problem.dispatch), TINY
    )

    leaf_S2F = h_S2F[: problem.kept].double().requires_grad_()
    slots = problem.dispatch.slots_S[: problem.kept].long()
    leaf_NK = problem.weights_NK.double().requires_grad_()
    expected_SF = leaf_NK.flatten()[slots, None] * swiglu(leaf_S2F)
    y_SD = torch.einsum("sf,sdf->sd", expected_SF, problem.down_EDF.double()[problem.experts_S])
    y_SD.backward(problem.by_token(dy_ND).double())  # type: ignore[no-untyped-call]
    assert leaf_S2F.grad is not None and leaf_NK.grad is not None
    assert_close(dh_S2F[: problem.kept], leaf_S2F.grad)
    assert_close(sa_SF[: problem.kept], expected_SF.detach())
    assert_close(dweights_NK, leaf_NK.grad)
    dropped = problem.dispatch.slots_S[problem.kept :].long()
    assert not dweights_NK.flatten()[dropped].any()


@pytest.mark.parametrize("left_by_token", [True, False])
def test_gradients_of_weights_are_sums_over_each_experts_rows(problem: Problem, left_by_token: bool) -> None:
    schedule, rows_SF = Schedule(problem.dispatch), problem.rows_SF
    if left_by_token:
        found = d_weights.d_down(problem.x_ND, rows_SF, schedule, TINY)
    else:
        found = d_weights.d_gate_up(rows_SF, problem.x_ND, schedule, TINY).mT
    one_E = F.one_hot(torch.tensor(problem.experts_S, device=DEVICE), problem.dispatch.experts).double()
    rows_SD = problem.by_token(problem.x_ND).double()
    expected = torch.einsum("se,sd,sf->edf", one_E, rows_SD, rows_SF[: problem.kept].double())
    assert_close(found, expected)
    assert not found[problem.dispatch.offsets_E1.diff() == 0].any()


def test_the_preferred_tiles_compute_the_same(problem: Problem) -> None:
    if (DEVICE, problem.x_ND.dtype) == ("cuda", torch.float32):
        pytest.skip("they are made for numbers of two bytes")
    schedule, h_S2F = Schedule(problem.dispatch), problem.x_ND.new_empty(26, 80)
    up.up(problem.x_ND, problem.gate_up_E2FD, schedule, h_S2F, None, up.TILES[:1])
    assert_close(h_S2F[: problem.kept], pre_activation(problem))
    rows_SD = product.product(problem.rows_SF, problem.down_EDF, schedule, product.TILES[:1])
    assert_close(rows_SD[: problem.kept], down(problem))


def counted(*counts: int) -> Dispatch:
    """Return the ordering of slots of which so many chose each in-layer expert, one slot a token."""
    experts_NK = torch.arange(len(counts), device=DEVICE).repeat_interleave(
        torch.tensor(counts, device=DEVICE)
    )
    return dispatch_slots(experts_NK[:, None], len(counts))


def test_the_table_lists_the_tiles_of_each_expert_and_the_experts_by_rows() -> None:
    schedule = Schedule(counted(5, 0, 8, 1, 8))
    table = schedule.table(4)
    assert table.first_E1.tolist() == [0, 2, 2, 4, 5, 7]
    assert table.expert_T[:7].tolist() == [0, 0, 2, 2, 3, 4, 4]
    assert table.order_E.tolist() == [2, 4, 0, 3, 1]
    assert schedule.most_tiles(4) == 6 + 5
    assert schedule.table(4) is table


def test_an_expert_may_have_more_tiles_than_are_written_at_once() -> None:
    table = Schedule(counted(1, 300, 2)).table(1)
    assert table.expert_T[:303].tolist() == [0] + [1] * 300 + [2] * 2


def test_the_fastest_tile_is_launched_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_fastest", {})
    choice = tuple(Tile(rows, 16, 16, 4, 2) for rows in (16, 32, 64))
    times, launched = {16: 3.0, 32: 1.0, 64: 2.0}, []

    def milliseconds(launch: object) -> float:
        launch()  # type: ignore[operator]
        return times[launched[-1].rows]

    monkeypatch.setattr(tiles, "_milliseconds", milliseconds)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    tiles.launch_fastest(("kernel", 1), choice, launched.append)
    assert [tile.rows for tile in launched] == [16, 32, 64, 32]
    tiles.launch_fastest(("kernel", 1), choice, launched.append)
    assert [tile.rows for tile in launched[4:]] == [32]


def test_the_clock_chooses_no_tile_where_torch_is_to_be_deterministic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiles, "_milliseconds", lambda launch: pytest.fail("timed"))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    launched: list[Tile] = []
    tiles.launch_fastest(("kernel", 3), up.TILES, launched.append)
    assert launched == [up.TILES[0]]


def test_nothing_is_timed_while_a_cuda_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_fastest", {})
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    launched: list[Tile] = []
    tiles.launch_fastest(("kernel", 2), up.TILES, launched.append)
    assert launched == [up.TILES[0]]
    assert not tiles._fastest
