"""Sorts arrays that nearly fill the memory: one range of keys after the other, so that only a range is copied."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from moe_trainer.deduplication.catalogue import Keys, Names, Rows

#: Rows that are sorted at once; each takes about 50 bytes meanwhile.
ROWS_SORTED = 1 << 19


def leading(names: NDArray[np.bytes_]) -> Keys:
    """Return the first four bytes of names as numbers; they sort like the names."""
    numbers = names.view(np.uint8).reshape(-1, names.dtype.itemsize)[:, :4]
    return np.ascontiguousarray(numbers).view(">u4").ravel().astype(np.uint32)


def in_ranges(keys: Keys, at_once: int | None = None) -> Iterator[Rows]:
    """Yield the places of the keys, by ascending ranges of key values; equal keys are in the same range.

    Since keys are spread evenly, a range holds about ``at_once`` of them, by default ROWS_SORTED. Sorting each range
    sorts everything, and takes only the memory for one range.
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
    """Finds rows by their names; if several rows have a name, the first of them."""

    def __init__(self, names: Names, rows: Rows) -> None:
        self._rows = by_name(names, rows)
        self._names = names[self._rows]

    def find(self, names: Names) -> Rows:
        """Return the row of each name, or -1 if there is none."""
        places = np.searchsorted(self._names, names)
        places[places == len(self._names)] = 0
        if not len(self._names):
            return np.full(len(names), -1)
        return np.where(self._names[places] == names, self._rows[places], -1)
