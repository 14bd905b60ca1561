"""Which Experts and pools a change concerns. Pure: the whole table of what causes what.

| Change | Concerns at once | And then |
|---|---|---|
| an Expert | itself and its pool | its peers, if its spec, data, current revision or existence changed |
| an ExpertRevision, a Job, another child | its Expert if it has one, and its pool | |
| a pool | itself | its Experts |
| a claim | the pools that use it | their Experts |
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from moe_formats.resources import labels
from moe_operator.state import Key, Manifest


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


def concerned(old: Manifest | None, new: Manifest | None, lookup: Lookup) -> Concerned:
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
        first = _own_keys(kind, namespace, either)
        changed = kind == "Expert" and _weight(old) != _weight(new)
        pools = {key.name for key in first if key.kind == "ExpertPool"} if changed else set()
    then = {key for pool in pools for key in _experts(namespace, pool, lookup)}
    return Concerned(frozenset(first), frozenset(then - first))


def _own_keys(kind: str, namespace: str, manifest: Manifest) -> set[Key]:
    """Return the Expert and the pool that an object says it belongs to."""
    if kind in ("Expert", "ExpertRevision"):
        spec = manifest.get("spec") or {}
        pool = spec.get("pool", "")
        expert = manifest["metadata"]["name"] if kind == "Expert" else spec.get("expert", "")
    else:
        marks = manifest["metadata"].get("labels") or {}
        pool, expert = marks.get(labels.POOL, ""), marks.get(labels.EXPERT, "")
    keys = set()
    if pool:
        keys.add(Key("ExpertPool", namespace, pool))
    if expert:
        keys.add(Key("Expert", namespace, expert))
    return keys


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


def _experts(namespace: str, pool: str, lookup: Lookup) -> Iterator[Key]:
    for expert in lookup.of_pool("Expert", namespace, pool):
        yield Key("Expert", namespace, expert["metadata"]["name"])


def _claim_users(claim: Manifest, lookup: Lookup) -> set[str]:
    """Return the pools that a claim was made for, or that name it."""
    metadata = claim["metadata"]
    pools = {(metadata.get("labels") or {}).get(labels.POOL, "")}
    for pool in lookup.all("ExpertPool"):
        same_namespace = pool["metadata"]["namespace"] == metadata["namespace"]
        if same_namespace and pool["spec"].get("storage", {}).get("claim") == metadata["name"]:
            pools.add(pool["metadata"]["name"])
    return pools - {""}
