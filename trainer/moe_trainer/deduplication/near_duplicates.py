"""Finds near-duplicates among the rows of a catalogue without holding their signatures in memory.

For each band, rows are sorted by the band's key. Rows with the same key form a *run*, and only pairs within a run are
compared. A search says which pairs still matter, so that a thousand copies of one text cost about a thousand
comparisons and not half a million. Most pairs that share a key have little else in common; their sketches, which are
in memory, tell them apart before signatures are read.

    Components     which rows are linked by similarity, directly or through others
    Resembling     which rows are similar to any of some given rows
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moe_trainer.deduplication.catalogue import Catalogue, Keys, Rows, share_a_band
from moe_trainer.deduplication.minhash import BANDS, BINS, Signatures
from moe_trainer.deduplication.sorting import in_ranges

#: Bytes of keys that are in memory at once.
KEY_MEMORY = 64 * 1024 * 1024
#: Pairs whose signatures are compared at once: 1 KB per pair.
PAIRS_COMPARED = 8 * 1024
#: Pairs that are considered at once.
PAIRS_SEEN = 256 * 1024
#: In longer runs one row at a time is compared with all others: what it links need not be compared again.
_SHORT_RUN = 64

Mask = NDArray[np.bool_]


class Search(Protocol):
    """What is looked for among pairs. Rows are numbered from 0 among those that are searched."""

    def matters(self, left: Rows, right: Rows) -> Mask:
        """Return which pairs have to be compared."""
        ...

    def alike(self, left: Rows, right: Rows) -> None:
        """Record pairs that reach the threshold."""
        ...

    def pivots(self, run: Rows) -> Rows:
        """Return rows of a run such that every pair that matters contains at least one of them."""
        ...


def search(catalogue: Catalogue, rows: Rows, threshold: float, wanted: Search) -> None:
    """Give a search all pairs of rows that share a band and reach the threshold; the rows must ascend."""
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
    """Yield the pairs of one band that may matter, in portions."""
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
    """Yield pivots paired with the whole run: first one pivot, since it may link everything, then more and more."""
    pivots, taken, some = wanted.pivots(run), 0, 1
    while taken < len(pivots):
        now = pivots[taken : taken + some]
        yield np.repeat(now, len(run)), np.tile(run, len(now))
        taken += some
        some = min(2 * some, max(1, PAIRS_SEEN // len(run)))


class Components:
    """The components of rows that are linked, directly or through others (union-find); old rows are not linked to each other."""

    def __init__(self, rows: int, old: Mask | None = None) -> None:
        self._old = np.zeros(rows, dtype=np.bool_) if old is None else old
        self._root = np.arange(rows)
        self._changed = False

    def roots(self) -> Rows:
        """Return for each row the smallest row of its component."""
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
        """Return all rows except those of the largest component."""
        roots = self.roots()[run]
        values, counts = np.unique(roots, return_counts=True)
        others: Rows = run[roots != values[counts.argmax()]]
        return others

    def _find(self, row: int) -> int:
        while (above := int(self._root[row])) != row:
            self._root[row] = row = int(self._root[above])
        return row


class Resembling:
    """The rows that are similar to at least one of the given rows."""

    def __init__(self, given: Mask) -> None:
        self._given = given
        self.found = np.zeros(len(given), dtype=np.bool_)

    def matters(self, left: Rows, right: Rows) -> Mask:
        """Return which pairs consist of a given row and one that is not yet known to resemble any."""
        one_of_each = self._given[left] != self._given[right]
        new: Mask = one_of_each & ~(self.found[left] | self.found[right])
        return new

    def alike(self, left: Rows, right: Rows) -> None:
        """Mark the other row of each pair with a given one."""
        self.found[np.where(self._given[left], right, left)] = True

    def pivots(self, run: Rows) -> Rows:
        """Return the rows whose result is still unknown, or the given rows, whichever are fewer."""
        given = run[self._given[run]]
        unknown = run[~(self._given[run] | self.found[run])]
        return min(given, unknown, key=len)
