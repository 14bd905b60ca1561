"""How the rows are visited: every place once, in order, in pieces that fit the cache."""

import pytest
import torch

from moe_trainer.moe.dispatch import Dispatch
from moe_trainer.moe.visits import ExpertRows, Visit, cut, plan_visits


def plan(*sizes: int, every: bool = True) -> list[Visit]:
    offsets_E1 = torch.tensor([0, *sizes]).cumsum(0)
    nothing = torch.empty(0)
    return plan_visits(Dispatch(nothing, nothing, offsets_E1, active=1), 10, every)


def test_small_neighbours_share_a_visit() -> None:
    assert plan(3, 4, 3, 2) == [
        Visit(
            0, [ExpertRows(0, 3, again=False), ExpertRows(1, 4, again=False), ExpertRows(2, 3, again=False)]
        ),
        Visit(10, [ExpertRows(3, 2, again=False)]),
    ]


def test_a_crowded_in_layer_expert_is_cut_into_equal_pieces() -> None:
    assert plan(1, 29, 1) == [
        Visit(0, [ExpertRows(0, 1, again=False), ExpertRows(1, 9, again=False)]),
        Visit(10, [ExpertRows(1, 10, again=True)]),
        Visit(20, [ExpertRows(1, 10, again=True)]),
        Visit(30, [ExpertRows(2, 1, again=False)]),
    ]


def test_one_a_little_too_large_is_not_cut() -> None:
    assert plan(14) == [Visit(0), Visit(0, [ExpertRows(0, 14, again=False)])]


def test_one_without_slots_has_an_empty_piece_that_sets_its_gradient() -> None:
    assert plan(0, 0) == [Visit(0, [ExpertRows(0, 0, again=False), ExpertRows(1, 0, again=False)])]


def test_where_no_gradient_is_asked_for_it_has_none() -> None:
    assert plan(0, 3, 0, every=False) == [Visit(0, [ExpertRows(1, 3, again=False)])]
    assert plan(0, 0, every=False) == [Visit(0)]


@pytest.mark.parametrize("seed", range(20))
def test_every_place_is_visited_once_and_in_order(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = [int(size) for size in torch.randint(0, 40, (12,), generator=generator)]
    visits = plan(*sizes)
    assert [visit.first + row for visit in visits for row in range(visit.rows)] == list(range(sum(sizes)))
    pieces = [piece for visit in visits for piece in visit.pieces]
    assert [sum(piece.rows for piece in pieces if piece.expert == e) for e in range(12)] == sizes
    assert [piece.expert for piece in pieces if not piece.again] == list(range(12))
    assert all(visit.rows <= 10 or len(visit.pieces) == 1 for visit in visits)
    assert all(piece.rows < 15 for piece in pieces)


def test_rows_are_cut_by_visit_and_by_piece_without_those_of_dropped_slots() -> None:
    visits = plan(3, 4, 3, 2)
    found = cut(visits, torch.arange(14))
    assert [rows.tolist() for rows in found] == [list(range(10)), [10, 11]]
    assert [
        [piece.tolist() for piece in visit.pieces_of(rows)] for visit, rows in zip(visits, found, strict=True)
    ] == [[[0, 1, 2], [3, 4, 5, 6], [7, 8, 9]], [[10, 11]]]
