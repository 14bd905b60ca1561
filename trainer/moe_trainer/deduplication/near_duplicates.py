"""Finding near-duplicates among the rows of a catalogue, in memory that does not hold their signatures.

One band after the other: rows are sorted by the band's key, rows of one key are a *run*, and only pairs
within a run are compared. A search says which pairs still matter, so that a thousand copies of one text
cost some thousand comparisons and not half a million. Most pairs that share a key have little else in
common: their sketches, in memory, tell them apart before anything is read.

    Components     which rows are linked, directly or through others
    Resembling     which rows are like one of some given rows
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moe_trainer.deduplication.catalogue import Catalogue, Keys, Rows, share_a_band
from moe_trainer.deduplication.minhash import BANDS, BINS, Signatures
from moe_trainer.deduplication.sorting import in_ranges

#: Keys that are in memory at once, in bytes.
KEY_MEMORY = 64 * 1024 * 1024
#: Pairs that are compared at once: 1 KB each.
PAIRS_COMPARED = 8 * 1024
#: Pairs that are looked at at once.
PAIRS_SEEN = 256 * 1024
#: Longer runs are gone through row by row, so that what one row links need not be compared with the next.
_SHORT_RUN = 64

Mask = NDArray[np.bool_]


class Search(Protocol):
    """What is wanted of pairs. Rows are counted from 0 among those that are searched."""

    def matters(self, left: Rows, right: Rows) -> Mask:
        """Return which pairs need a comparison."""
        ...

    def alike(self, left: Rows, right: Rows) -> None:
        """Take note of pairs that reach the threshold."""
        ...

    def pivots(self, run: Rows) -> Rows:
        """Return rows of a run of which every pair that matters has at least one."""
        ...


def search(catalogue: Catalogue, rows: Rows, threshold: float, wanted: Search) -> None:
    """Show a search all pairs of rows, which ascend, that share a band and reach the threshold."""
    bands_at_once = max(1, KEY_MEMORY // max(1, 4 * len(rows)))
    for start in range(0, BANDS, bands_at_once):
        bands = range(start, min(start + bands_at_once, BANDS))
        for keys in catalogue.keys(rows, bands):
            for left, right in _pairs(keys, wanted):
                left, right = _where(wanted.matters(left, right), left, right)
                left, right = _where(catalogue.may_be_alike(rows[left], rows[right], threshold), left, right)
                for first in range(0, len(left), PAIRS_COMPARED):
                    one, other = left[first : first + PAIRS_COMPARED], right[first : first + PAIRS_COMPARED]
                    wanted.alike(*_where(_alike(catalogue, rows[one], rows[other], threshold), one, other))


def similar(left: Signatures, right: Signatures, threshold: float) -> Mask:
    """Return for each pair of signatures whether they share a band and reach the threshold."""
    estimate = (left == right).sum(axis=1) / BINS
    reached: Mask = (estimate >= threshold) & share_a_band(left, right)
    return reached


def _alike(catalogue: Catalogue, left: Rows, right: Rows, threshold: float) -> Mask:
    needed, places = np.unique(np.concatenate((left, right)), return_inverse=True)
    signatures = catalogue.signatures(needed)
    return similar(signatures[places[: len(left)]], signatures[places[len(left) :]], threshold)


def _where(mask: Mask, left: Rows, right: Rows) -> tuple[Rows, Rows]:
    return left[mask], right[mask]


def _pairs(keys: Keys, wanted: Search) -> Iterator[tuple[Rows, Rows]]:
    """Yield the pairs of one band that may matter, some at a time."""
    for part in in_ranges(keys):
        order = part[np.argsort(keys[part])]
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        starts = np.concatenate(([0], edges))
        lengths = np.diff(np.concatenate((starts, [len(order)])))
        short = (lengths > 1) & (lengths <= _SHORT_RUN)
        yield from _pairs_of_short(order, starts[short], lengths[short])
        for start, length in zip(starts[lengths > _SHORT_RUN], lengths[lengths > _SHORT_RUN], strict=True):
            yield from _pairs_of_long(order[start : start + length], wanted)


def _pairs_of_short(order: Rows, starts: Rows, lengths: Rows) -> Iterator[tuple[Rows, Rows]]:
    first = np.repeat(starts, lengths)
    ends = np.repeat(starts + lengths, lengths)
    places = np.arange(len(first)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + first
    for distance in range(1, _SHORT_RUN):
        inside = places + distance < ends
        places, ends = places[inside], ends[inside]
        for start in range(0, len(places), PAIRS_SEEN):
            some = places[start : start + PAIRS_SEEN]
            yield order[some], order[some + distance]


def _pairs_of_long(run: Rows, wanted: Search) -> Iterator[tuple[Rows, Rows]]:
    """Yield each pivot with the whole run: one pivot at first, since it may link all, then ever more."""
    pivots, taken, some = wanted.pivots(run), 0, 1
    while taken < len(pivots):
        now = pivots[taken : taken + some]
        yield np.repeat(now, len(run)), np.tile(run, len(now))
        taken += some
        some = min(2 * some, max(1, PAIRS_SEEN // len(run)))


class Components:
    """Rows that are linked, directly or through others (union-find); old rows are not linked anew."""

    def __init__(self, rows: int, old: Mask | None = None) -> None:
        self._old = np.zeros(rows, dtype=np.bool_) if old is None else old
        self._root = np.arange(rows)
        self._changed = False

    def roots(self) -> Rows:
        """Return for each row the smallest that it is linked to."""
        while self._changed:
            further = self._root[self._root]
            self._changed = bool((further != self._root).any())
            self._root = further
        return self._root

    def matters(self, left: Rows, right: Rows) -> Mask:
        """Return which pairs are not linked yet and not both old."""
        roots = self.roots()
        different: Mask = (roots[left] != roots[right]) & ~(self._old[left] & self._old[right])
        return different

    def alike(self, left: Rows, right: Rows) -> None:
        """Link pairs."""
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            first, second = sorted((self._find(one), self._find(other)))
            self._root[second] = first
        self._changed = self._changed or len(left) > 0

    def pivots(self, run: Rows) -> Rows:
        """Return all rows but those of the largest component."""
        roots = self.roots()[run]
        values, counts = np.unique(roots, return_counts=True)
        others: Rows = run[roots != values[counts.argmax()]]
        return others

    def _find(self, row: int) -> int:
        while (above := int(self._root[row])) != row:
            self._root[row] = row = int(self._root[above])
        return row


class Resembling:
    """Rows that are like at least one of the given rows."""

    def __init__(self, given: Mask) -> None:
        self._given = given
        self.found = np.zeros(len(given), dtype=np.bool_)

    def matters(self, left: Rows, right: Rows) -> Mask:
        """Return which pairs are of a given row and one that is not known to be like any."""
        one_of_each = self._given[left] != self._given[right]
        new: Mask = one_of_each & ~(self.found[left] | self.found[right])
        return new

    def alike(self, left: Rows, right: Rows) -> None:
        """Mark the rows of pairs that are not the given ones."""
        self.found[np.where(self._given[left], right, left)] = True

    def pivots(self, run: Rows) -> Rows:
        """Return the rows that are not known yet, or the given ones, whichever are fewer."""
        given = run[self._given[run]]
        unknown = run[~(self._given[run] | self.found[run])]
        return min(given, unknown, key=len)
