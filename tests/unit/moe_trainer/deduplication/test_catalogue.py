"""Rows of a catalogue: sorted range by range as at once, found by name, and growing under what was returned."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from moe_trainer.deduplication.catalogue import Catalogue, Names, digits_of
from moe_trainer.deduplication.minhash import BINS
from moe_trainer.deduplication.sorting import Index, by_name, in_ranges, leading


def random_names(count: int, seed: int = 0) -> Names:
    return np.frombuffer(np.random.default_rng(seed).bytes(16 * count), dtype="S16")


@pytest.mark.parametrize("at_once", [1, 7, 100, 1000])
def test_ranges_hold_every_place_once_and_equal_keys_together(at_once: int) -> None:
    keys = np.random.default_rng(0).integers(0, 2**32, 100, dtype=np.uint32)
    keys[:4] = 0, 2**32 - 1, 5, 5
    parts = list(in_ranges(keys, at_once))
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    assert all((np.diff(part) > 0).all() for part in parts)
    bounds = [(keys[part].min(), keys[part].max()) for part in parts if len(part)]
    assert all(below[1] < above[0] for below, above in pairwise(bounds))


def test_of_no_keys_there_is_one_empty_range() -> None:
    assert [part.tolist() for part in in_ranges(np.empty(0, dtype=np.uint32))] == [[]]


def test_rows_by_name_are_in_the_order_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_trainer.deduplication.sorting.ROWS_SORTED", 10)
    names = np.concatenate((random_names(90), random_names(10)))  # ten of them twice
    rows = np.arange(0, 100, 1)
    assert by_name(names, rows).tolist() == sorted(rows.tolist(), key=lambda row: digits_of(names)[row])
    assert (np.diff(leading(names[by_name(names, rows)]).astype(np.int64)) >= 0).all()


def test_an_index_finds_the_first_row_of_a_name_and_no_other_name() -> None:
    names = np.concatenate((random_names(20), random_names(5)))
    index = Index(names, np.arange(25))
    assert index.find(names).tolist() == [*range(20), *range(5)]
    assert index.find(random_names(8, seed=1)).tolist() == [-1] * 8
    assert Index(names[:0], np.arange(0)).find(names[:2]).tolist() == [-1, -1]


def test_what_was_returned_stays_while_rows_are_added(tmp_path: Path) -> None:
    with Catalogue(tmp_path) as catalogue:
        assert len(catalogue.names) == 0
        first, second = random_names(3), random_names(2, seed=1)
        assert catalogue.append(first, np.zeros((3, BINS), dtype=np.uint32)).tolist() == [0, 1, 2]
        before = catalogue.names
        assert catalogue.append(second, np.ones((2, BINS), dtype=np.uint32)).tolist() == [3, 4]
        assert before.tolist() == first.tolist()
        assert catalogue.names.tolist() == [*first.tolist(), *second.tolist()]
        assert catalogue.signatures(np.array([3]))[0].tolist() == [1] * BINS
        assert not list(tmp_path.iterdir())  # its files have no names
