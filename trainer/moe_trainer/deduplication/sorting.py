"""Sorting what memory holds but once: range after range of its keys, so that it takes memory for one range more."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from moe_trainer.deduplication.catalogue import Keys, Names, Rows

#: Rows that are sorted at once, each of which takes some 50 bytes meanwhile.
ROWS_SORTED = 1 << 19


def leading(names: NDArray[np.bytes_]) -> Keys:
    """Return the first four bytes of names as numbers, which sort like the names."""
    numbers = names.view(np.uint8).reshape(-1, names.dtype.itemsize)[:, :4]
    return np.ascontiguousarray(numbers).view(">u4").ravel().astype(np.uint32)


def in_ranges(keys: Keys, at_once: int | None = None) -> Iterator[Rows]:
    """Yield the places of keys in ranges of their values, ascending; equal keys are in one range.

    Keys are spread evenly, so that a range holds about ``at_once`` of them, by default ROWS_SORTED. What sorts range
    after range sorts everything, and takes memory for one.
    """
    ranges = max(1, -(-len(keys) // (at_once or ROWS_SORTED)))
    for number in range(ranges):
        first, last = (number << 32) // ranges, (((number + 1) << 32) // ranges) - 1
        yield np.flatnonzero((keys >= np.uint32(first)) & (keys <= np.uint32(last)))


def by_name(names: Names, rows: Rows) -> Rows:
    """Return rows in the order of their names."""
    of_rows = names[rows]
    parts = [part[np.argsort(of_rows[part], kind="stable")] for part in in_ranges(leading(of_rows))]
    return rows[np.concatenate(parts)]


class Index:
    """Finds rows by their names; of equal names the first of the rows."""

    def __init__(self, names: Names, rows: Rows) -> None:
        self._rows = by_name(names, rows)
        self._names = names[self._rows]

    def find(self, names: Names) -> Rows:
        """Return the row of each name, -1 if there is none."""
        places = np.searchsorted(self._names, names)
        places[places == len(self._names)] = 0
        if not len(self._names):
            return np.full(len(names), -1)
        return np.where(self._names[places] == names, self._rows[places], -1)
