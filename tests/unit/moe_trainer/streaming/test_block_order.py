"""Orders that are computed and not listed: permutations, and the turns of streams."""

from collections import Counter
from itertools import pairwise

import pytest

from moe_trainer.streaming.block_order import Interleaving, Permutation


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000, 4097])
def test_every_number_has_one_place(size: int) -> None:
    order = Permutation(size, "key")
    assert sorted(order[place] for place in range(size)) == list(range(size))


def test_another_key_draws_another_order() -> None:
    one, other = ([Permutation(1000, key)[place] for place in range(1000)] for key in ("a", "b"))
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 10


def test_an_order_looks_random() -> None:
    """Neighbours are as far from each other as in a shuffled list: a third of the size on average."""
    order = Permutation(10_000, "key")
    values = [order[place] for place in range(10_000)]
    mean = sum(abs(a - b) for a, b in pairwise(values)) / 9999
    assert abs(mean / 10_000 - 1 / 3) < 0.02
    assert sum(values[:100]) / 100 == pytest.approx(5000, abs=1000)


def test_a_huge_order_takes_no_memory() -> None:
    order = Permutation(10**12, "key")
    places = [0, 1, 10**12 - 1]
    assert len({order[place] for place in places}) == 3
    with pytest.raises(IndexError):
        order[10**12]


@pytest.mark.parametrize("shares", [[1.0], [1, 1], [0.5, 0.3, 0.2], [3, 1], [0.9, 0.0999, 0.0001]])
def test_turns_follow_the_shares_and_are_spread_evenly(shares: list[float]) -> None:
    mixture = Interleaving(shares)
    for start in (0, 1234):
        counts = Counter(mixture[number][0] for number in range(start, start + 1000))
        for stream, share in enumerate(shares):
            assert counts[stream] == pytest.approx(1000 * share / sum(shares), abs=2)


def test_a_streams_blocks_are_counted_without_a_gap() -> None:
    mixture = Interleaving([0.55, 0.45])
    turns: dict[int, list[int]] = {0: [], 1: []}
    for number in range(3000):
        stream, turn = mixture[number]
        turns[stream].append(turn)
    assert all(found == list(range(len(found))) for found in turns.values())
