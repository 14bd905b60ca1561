"""Decides which Experts of a pool take part if there are more than a routing policy can have.

A newcomer is refused, so it never takes the place of one that serves. In a pool that has too many all the same, those that
are ready are taken first, and among them those that were created first.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from moe_formats.resources.expert import Expert

T = TypeVar("T")

#: Largest number of Experts that a pool routes to.
MAX_EXPERTS = 64


def members(experts: Mapping[str, Expert]) -> set[str]:
    """Return the names of the Experts that may take part: those that were created first."""
    staying = [expert for expert in experts.values() if expert.metadata.deletion_timestamp is None]
    return {expert.metadata.name for expert in sorted(staying, key=age)[:MAX_EXPERTS]}


def chosen(items: Sequence[T], rank: Callable[[T], tuple[bool, float, str]]) -> list[T]:
    """Return as many items as there may be Experts, those with the smallest rank, in the order that they had."""
    taken = {rank(item) for item in sorted(items, key=rank)[:MAX_EXPERTS]}
    return [item for item in items if rank(item) in taken]


def earlier(expert: Expert, peers: Iterable[Expert]) -> list[Expert]:
    """Return the Experts that were created before another one."""
    return [peer for peer in peers if age(peer) < age(expert)]


def age(expert: Expert) -> tuple[float, str]:
    """Return what Experts are sorted by, so that the oldest comes first."""
    created = expert.metadata.creation_timestamp
    return (created.timestamp() if created else 0.0, expert.metadata.name)
