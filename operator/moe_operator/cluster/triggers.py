"""Which reconciled objects a change concerns. Pure: the whole table of what causes what.

| Change | Concerns at once | And then |
|---|---|---|
| a member of a pool, such as an Expert | itself, its Expert and its pool | |
| an Expert whose spec, data, current revision or existence changed | itself and its pool | all members of its pool |
| an ExpertRevision, a Job, another child | its Expert if it has one, and its pool | |
| a pool | itself | all its members |
| a claim | the pools that use it | all their members |
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from moe_formats.resources import labels
from moe_operator.state import Key, Manifest

#: By reconciled kind, how to tell the pool of an object; the rows of ``subjects.py`` say so.
PoolOf = Mapping[str, Callable[[Manifest], str]]


class Concerned(NamedTuple):
    """Keys to look at again: at once, and after those."""

    first: frozenset[Key] = frozenset()
    then: frozenset[Key] = frozenset()


class Lookup(Protocol):
    """What of the cache is needed to find who is concerned."""

    def of_pool(self, kind: str, namespace: str, pool: str) -> list[Manifest]:
        """Return the objects of a kind in a pool."""

    def all(self, kind: str) -> Iterable[Manifest]:
        """Return every object of a kind."""


def concerned(old: Manifest | None, new: Manifest | None, lookup: Lookup, pool_of: PoolOf) -> Concerned:
    """Return the keys to look at again after an object changed from ``old`` to ``new``."""
    either = new if new is not None else old
    if either is None:
        return Concerned()
    kind, namespace = either["kind"], either["metadata"].get("namespace", "")
    if kind == "ExpertPool":
        pools = {either["metadata"]["name"]}
        first = {Key("ExpertPool", namespace, name) for name in pools}
    elif kind == "PersistentVolumeClaim":
        pools = _claim_users(either, lookup)
        first = {Key("ExpertPool", namespace, name) for name in pools}
    else:
        first = _own_keys(kind, namespace, either, pool_of)
        changed = kind == "Expert" and _weight(old) != _weight(new)
        pools = {key.name for key in first if key.kind == "ExpertPool"} if changed else set()
    then = {key for pool in pools for key in _members(namespace, pool, lookup, pool_of)}
    return Concerned(frozenset(first), frozenset(then - first))


def _own_keys(kind: str, namespace: str, manifest: Manifest, pool_of: PoolOf) -> set[Key]:
    """Return the object itself if its kind is reconciled, and the Expert and the pool that it says it belongs to."""
    said = labels.belongings(manifest)
    keys = {Key("ExpertPool", namespace, said.pool), Key("Expert", namespace, said.expert)}
    if kind in pool_of:
        keys.add(Key(kind, namespace, manifest["metadata"]["name"]))
    return {key for key in keys if key.name}


def _weight(expert: Manifest | None) -> Any:
    """Return the part of an Expert that its peers depend on."""
    if expert is None:
        return None
    metadata, status = expert["metadata"], expert.get("status") or {}
    news = status.get("snapshot"), status.get("currentRevision"), _holds(status, "Stalled")
    return metadata["uid"], metadata.get("generation"), metadata.get("deletionTimestamp"), news


def _holds(status: Manifest, type_: str) -> bool:
    conditions = status.get("conditions") or []
    return any(item["type"] == type_ and item["status"] == "True" for item in conditions)


def _members(namespace: str, pool: str, lookup: Lookup, pool_of: PoolOf) -> Iterator[Key]:
    for kind in pool_of:
        for member in lookup.of_pool(kind, namespace, pool):
            yield Key(kind, namespace, member["metadata"]["name"])


def _claim_users(claim: Manifest, lookup: Lookup) -> set[str]:
    """Return the pools that a claim was made for, or that name it."""
    metadata = claim["metadata"]
    pools = {(metadata.get("labels") or {}).get(labels.POOL, "")}
    for pool in lookup.all("ExpertPool"):
        same_namespace = pool["metadata"]["namespace"] == metadata["namespace"]
        if same_namespace and pool["spec"].get("storage", {}).get("claim") == metadata["name"]:
            pools.add(pool["metadata"]["name"])
    return pools - {""}
