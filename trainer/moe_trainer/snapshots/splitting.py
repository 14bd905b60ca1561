"""Decides which documents are held out: whole clusters of near-duplicates, by a hash, permanently.

    cluster    documents linked by similarity >= THRESHOLD, directly or through others
    id         the first 16 hexadecimal digits of its smallest document hash when it was first seen
    held out   if H(salt, id) < fraction, decided when it was first seen

A document that later resembles a known cluster joins it, and so its side. If it resembles several, it joins one that is
held out, because held-out text must never be trained on. This file only decides; snapshot.py reads and writes.
"""

import hashlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from moe_formats.job_config import HoldoutRule
from moe_trainer.deduplication.catalogue import Catalogue, Names, Rows, digits_one_by_one
from moe_trainer.deduplication.fingerprints import CLUSTER_BYTES, Placement
from moe_trainer.deduplication.minhash import THRESHOLD, Signatures
from moe_trainer.deduplication.near_duplicates import Components, Mask, search, similar

_SIGNATURES_READ = 1024


def is_held_out(rule: HoldoutRule, cluster: str) -> bool:
    """Return whether a cluster that was never seen before is held out."""
    number = int.from_bytes(hashlib.sha256(f"{rule.salt}\0{cluster}".encode()).digest()[:8], "big")
    return number < rule.fraction * 2.0**64


def assign(catalogue: Catalogue, fresh: Rows, known: Rows, places: Placement, rule: HoldoutRule) -> Placement:
    """Return the placement of fresh documents, given that of the known ones; the two sets are disjoint.

    Rows must ascend. The result depends on the set of documents, not on their order.
    """
    rows = np.sort(np.concatenate((fresh, known)))
    is_known = np.zeros(len(catalogue), dtype=np.bool_)
    is_known[known] = True
    is_known = is_known[rows]
    linked = Components(len(rows), old=is_known)
    search(catalogue, rows, THRESHOLD, linked)
    groups = linked.roots()
    ids = _ids_of_new(catalogue.names, rows, groups, ~is_known)
    found = Placement(ids[~is_known], np.zeros(len(fresh), dtype=np.bool_))
    joins = np.zeros(len(fresh), dtype=np.bool_)
    if len(known):
        joined = _first_known(places, groups[is_known], len(rows))[groups[~is_known]]
        joins = joined >= 0
        found.put(np.flatnonzero(joins), places.of(joined[joins]))
    new = digits_one_by_one(found.clusters[~joins])
    found.held_out[~joins] = np.fromiter((is_held_out(rule, cluster) for cluster in new), dtype=np.bool_)
    return found


def without_near_duplicates(catalogue: Catalogue, rows: Rows, threshold: float) -> Rows:
    """Return the rows to keep so that no two of them reach the threshold; of two, the smaller name is kept.

    Rows must ascend.
    """
    linked = Components(len(rows))
    search(catalogue, rows, threshold, linked)
    keep = np.ones(len(rows), dtype=np.bool_)
    for members in _groups(catalogue.names, rows, linked.roots()):
        if len(members) == 2:  # they can only be linked to each other
            keep[members[1]] = False
        else:
            keep[members] = _unlike_before(catalogue, rows[members], threshold)
    return rows[keep]


def _groups(names: Names, rows: Rows, groups: Rows) -> Iterator[Rows]:
    """Yield the places of the rows of each group that has several, ordered by name."""
    order = _by_group(names, rows, groups, _linked(groups))
    edges = np.flatnonzero(np.diff(groups[order], prepend=-1))
    for start, end in pairwise([*edges.tolist(), len(order)]):
        yield order[start:end]


def _by_group(names: Names, rows: Rows, groups: Rows, places: Rows) -> Rows:
    """Return places group by group, within a group ordered by name."""
    return places[np.lexsort((names[rows[places]], groups[places]))]


def _linked(groups: Rows) -> Rows:
    """Return the places of the rows that share a group with others; a group's number is the place of one of its rows."""
    linked = groups != np.arange(len(groups))
    linked[groups[linked]] = True
    return np.flatnonzero(linked)


def _unlike_before(catalogue: Catalogue, rows: Rows, threshold: float) -> Mask:
    """Return which rows of one component to keep: in its order, those that resemble no row kept before."""
    keep = np.zeros(len(rows), dtype=np.bool_)
    kept: Signatures = catalogue.signatures(rows[:0])
    for start in range(0, len(rows), _SIGNATURES_READ):
        some = catalogue.signatures(rows[start : start + _SIGNATURES_READ])
        for number in range(len(some)):
            signature = some[number : number + 1]
            if not similar(kept, signature, threshold).any():
                keep[start + number] = True
                kept = np.concatenate((kept, signature))
    return keep


def _ids_of_new(names: Names, rows: Rows, groups: Rows, new: Mask) -> NDArray[np.bytes_]:
    """Return the id that each new row's group gets if the group is new: the first digits of its smallest name."""
    prefixes = names.view(np.uint8).reshape(-1, names.dtype.itemsize)[:, :CLUSTER_BYTES]
    ids = np.ascontiguousarray(prefixes[rows]).view(f"S{CLUSTER_BYTES}").ravel()
    linked = _linked(groups)
    order = _by_group(names, rows, groups, linked[new[linked]])
    smallest = np.diff(groups[order], prepend=-1) != 0
    ids[order] = ids[order[smallest]][np.cumsum(smallest) - 1]
    return ids


def _first_known(places: Placement, groups: Rows, count: int) -> Rows:
    """Return for each group the known document that decides: a held-out one first, then the smallest id; -1 if none."""
    first = np.full(count, -1)
    last_first = np.lexsort((places.clusters, ~places.held_out))[::-1]
    first[groups[last_first]] = last_first
    return first
