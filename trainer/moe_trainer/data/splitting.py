"""Which documents are held out: whole clusters of near-duplicates, by a hash, once and for all.

    cluster    documents linked by similarity >= THRESHOLD, directly or through others
    id         first 16 hexadecimal digits of its smallest document hash, when first seen
    held out   iff H(salt, id) < fraction, when first seen

A document that later resembles a known cluster joins it and its side; if it resembles several, one that
is held out wins, because a held-out text must never be trained on. Files are snapshot.py's.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_trainer.data.catalogue import Catalogue, Names, Rows, digits_of
from moe_trainer.data.minhash import THRESHOLD, Signatures
from moe_trainer.data.near_duplicates import Components, Mask, search, similar
from moe_trainer.job_config import HoldoutRule

#: Bytes of a cluster's id: 16 hexadecimal digits.
CLUSTER_BYTES = 8

_SIGNATURES_READ = 1024


@dataclass(frozen=True)
class Places:
    """The places of documents: each one's cluster, and the side that the cluster is on."""

    clusters: NDArray[np.bytes_]
    held_out: Mask

    @classmethod
    def nowhere(cls, documents: int) -> "Places":
        """Return room for the places of some documents."""
        return cls(np.zeros(documents, dtype=f"S{CLUSTER_BYTES}"), np.zeros(documents, dtype=np.bool_))

    def of(self, rows: Rows | Mask) -> "Places":
        """Return the places of some documents."""
        return Places(self.clusters[rows], self.held_out[rows])

    def put(self, rows: Rows, places: "Places") -> None:
        """Set the places of some documents."""
        self.clusters[rows] = places.clusters
        self.held_out[rows] = places.held_out


def is_held_out(rule: HoldoutRule, cluster: str) -> bool:
    """Return the side of a cluster that nobody has seen before."""
    number = int.from_bytes(hashlib.sha256(f"{rule.salt}\0{cluster}".encode()).digest()[:8], "big")
    return number < rule.fraction * 2.0**64


def assign(catalogue: Catalogue, fresh: Rows, known: Rows, places: Places, rule: HoldoutRule) -> Places:
    """Return the places of fresh documents, given those of the known ones, which are other documents.

    Rows ascend. Depends on the set of documents, never on their order.
    """
    rows = np.sort(np.concatenate((fresh, known)))
    is_known = np.isin(rows, known)
    linked = Components(len(rows), old=is_known)
    search(catalogue, rows, THRESHOLD, linked)
    roots = linked.roots()
    group_of_fresh, group_of_known = roots[~is_known], roots[is_known]
    clusters = _ids_of_new(catalogue.names[fresh], group_of_fresh, len(rows))
    joined = _first_known(places, group_of_known, len(rows))[group_of_fresh]
    joins = joined >= 0
    found = Places(clusters[group_of_fresh], np.zeros(len(fresh), dtype=np.bool_))
    new, which = np.unique(found.clusters[~joins], return_inverse=True)
    sides = np.array([is_held_out(rule, cluster) for cluster in digits_of(new)], dtype=np.bool_)
    found.held_out[~joins] = sides[which]
    found.put(np.flatnonzero(joins), places.of(joined[joins]))
    return found


def without_near_duplicates(catalogue: Catalogue, rows: Rows, threshold: float) -> Rows:
    """Return the rows to keep so that no two kept ones reach the threshold; smallest name first.

    Rows ascend.
    """
    linked = Components(len(rows))
    search(catalogue, rows, threshold, linked)
    roots = linked.roots()
    names = catalogue.names[rows]
    order = np.lexsort((names, roots))
    keep = np.ones(len(rows), dtype=np.bool_)
    edges = np.flatnonzero(np.diff(roots[order])) + 1
    for members in np.split(order, edges):
        if len(members) == 2:  # linked by nothing but their own likeness
            keep[members[1]] = False
        elif len(members) > 2:
            keep[members] = _unlike_before(catalogue, rows[members], threshold)
    return rows[keep]


def _unlike_before(catalogue: Catalogue, rows: Rows, threshold: float) -> Mask:
    """Return which rows to keep of one component, in its order: those unlike every row kept before."""
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


def _ids_of_new(names: Names, groups: Rows, count: int) -> NDArray[np.bytes_]:
    """Return for each group the id that a new cluster gets: the first digits of its smallest name."""
    ids = np.zeros(count, dtype=f"S{CLUSTER_BYTES}")
    largest_first = np.argsort(names, kind="stable")[::-1]
    prefixes = names.view(np.uint8).reshape(-1, names.dtype.itemsize)[:, :CLUSTER_BYTES]
    ids[groups[largest_first]] = np.ascontiguousarray(prefixes[largest_first]).view(ids.dtype).ravel()
    return ids


def _first_known(places: Places, groups: Rows, count: int) -> Rows:
    """Return for each group its known document that decides: held out first, then smallest id; -1 if none."""
    first = np.full(count, -1)
    last_first = np.lexsort((places.clusters, ~places.held_out))[::-1]
    first[groups[last_first]] = last_first
    return first
