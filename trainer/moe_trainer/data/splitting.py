"""Which documents are held out: whole clusters of near-duplicates, by a hash, once and for all.

    cluster    documents linked by similarity >= THRESHOLD, directly or through others
    id         first 16 hexadecimal digits of its smallest document hash, when first seen
    held out   iff H(salt, id) < fraction, when first seen

A document that later resembles a known cluster joins it and its side; if it resembles several, one that
is held out wins, because a held-out text must never be trained on. Pure: files are snapshot.py's.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moe_trainer.data.minhash import NearDuplicates
from moe_trainer.job_config import HoldoutRule


@dataclass(frozen=True)
class Member:
    """A document's place: its cluster, and the side that the cluster is on."""

    cluster: str
    held_out: bool


@dataclass(frozen=True)
class Fingerprinted:
    """A document without its text."""

    document: str  #: Its name: Content.name().
    signature: bytes


def is_held_out(rule: HoldoutRule, cluster: str) -> bool:
    """Return the side of a cluster that nobody has seen before."""
    number = int.from_bytes(hashlib.sha256(f"{rule.salt}\0{cluster}".encode()).digest()[:8], "big")
    return number < rule.fraction * 2.0**64


def assign(
    documents: Iterable[Fingerprinted], known: Mapping[str, tuple[Member, bytes]], rule: HoldoutRule
) -> dict[str, Member]:
    """Return each document's place, given what was seen before (document hash to place and signature).

    Depends on the set of documents, never on their order.
    """
    places = {name: member for name, (member, _) in known.items()}
    index = NearDuplicates()
    for name, (_, signed) in sorted(known.items()):
        index.add(name, signed)
    links = _Links()
    fresh = sorted((d for d in documents if d.document not in known), key=lambda d: d.document)
    for document in fresh:
        for other in index.like(document.signature):
            links.join(document.document, other)
        index.add(document.document, document.signature)
    for group in links.groups([d.document for d in fresh]):
        member = _place_of_group(group, places, rule)
        places |= {name: member for name in group if name not in known}
    return places


def without_near_duplicates(documents: Iterable[Fingerprinted], threshold: float) -> set[str]:
    """Return the documents to keep so that no two kept ones reach the threshold; smallest hash first."""
    index = NearDuplicates(threshold)
    kept = set()
    for document in sorted(documents, key=lambda d: d.document):
        if not index.like(document.signature):
            index.add(document.document, document.signature)
            kept.add(document.document)
    return kept


def _place_of_group(group: list[str], places: Mapping[str, Member], rule: HoldoutRule) -> Member:
    seen = [places[name] for name in group if name in places]
    if seen:
        return min(seen, key=lambda member: (not member.held_out, member.cluster))
    cluster = min(group)[:16]
    return Member(cluster, is_held_out(rule, cluster))


class _Links:
    """Disjoint sets of names (union-find, with path halving)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        while (parent := self._parent.get(name, name)) != name:
            self._parent[name] = self._parent.get(parent, parent)
            name = parent
        return name

    def join(self, left: str, right: str) -> None:
        first, second = sorted((self.find(left), self.find(right)))
        self._parent[second] = first

    def groups(self, names: list[str]) -> list[list[str]]:
        """Return the sets that hold the names, with all their members."""
        groups: dict[str, list[str]] = {}
        wanted = {self.find(name) for name in names}
        for name in sorted({*self._parent, *self._parent.values(), *names}):
            if (root := self.find(name)) in wanted:
                groups.setdefault(root, []).append(name)
        return [groups[root] for root in sorted(groups)]
