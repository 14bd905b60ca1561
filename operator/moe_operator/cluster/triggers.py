"""Which Experts and pools a change concerns. Pure: the whole table of what causes what.

| Change | Looked at again |
|---|---|
| an Expert | itself and its pool; its peers, if its spec, data, current revision or existence changed |
| an ExpertRevision | its Expert and pool |
| a pool | itself and its Experts |
| a Job | its Expert and pool; the pool's other Experts, if it starts or stops taking a place |
| any other child | its Expert if it has one, and its pool |
| a claim | the pools that use it, and their Experts |
"""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from moe_operator.api import labels
from moe_operator.state import Key, Manifest


class Lookup(Protocol):
    """What of the cache is needed to find who is concerned."""

    def of_pool(self, kind: str, namespace: str, pool: str) -> list[Manifest]:
        """Return the objects of a kind in a pool."""

    def all(self, kind: str) -> Iterable[Manifest]:
        """Return every object of a kind."""


def concerned(old: Manifest | None, new: Manifest | None, lookup: Lookup) -> set[Key]:
    """Return the keys to look at again after an object changed from ``old`` to ``new``."""
    either = new if new is not None else old
    if either is None:
        return set()
    kind = either["kind"]
    namespace = either["metadata"].get("namespace", "")
    if kind == "ExpertPool":
        return set(_pool_and_experts(namespace, either["metadata"]["name"], lookup))
    if kind == "PersistentVolumeClaim":
        return set(_claim_users(either, lookup))
    keys = _own_keys(kind, namespace, either)
    if _weight(kind, old) != _weight(kind, new):
        for key in list(keys):
            if key.kind == "ExpertPool":
                keys |= set(_pool_and_experts(namespace, key.name, lookup))
    return keys


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


def _weight(kind: str, manifest: Manifest | None) -> Any:
    """Return the part of an object that its pool's other Experts depend on."""
    if kind not in ("Expert", "Job") or manifest is None:
        return None
    uid, status = manifest["metadata"]["uid"], manifest.get("status") or {}
    if kind == "Job":
        return uid, _holds(status, "Complete"), _holds(status, "Failed"), manifest["spec"].get("suspend")
    generation, deleted = (
        manifest["metadata"].get("generation"),
        manifest["metadata"].get("deletionTimestamp"),
    )
    news = status.get("snapshot"), status.get("currentRevision"), _holds(status, "Stalled")
    return uid, generation, deleted, news


def _holds(status: Manifest, type_: str) -> bool:
    conditions = status.get("conditions") or []
    return any(item["type"] == type_ and item["status"] == "True" for item in conditions)


def _pool_and_experts(namespace: str, pool: str, lookup: Lookup) -> Iterator[Key]:
    yield Key("ExpertPool", namespace, pool)
    for expert in lookup.of_pool("Expert", namespace, pool):
        yield Key("Expert", namespace, expert["metadata"]["name"])


def _claim_users(claim: Manifest, lookup: Lookup) -> Iterator[Key]:
    metadata = claim["metadata"]
    pools = {(metadata.get("labels") or {}).get(labels.POOL, "")}
    for pool in lookup.all("ExpertPool"):
        same_namespace = pool["metadata"]["namespace"] == metadata["namespace"]
        if same_namespace and pool["spec"].get("storage", {}).get("claim") == metadata["name"]:
            pools.add(pool["metadata"]["name"])
    for name in pools - {""}:
        yield from _pool_and_experts(metadata["namespace"], name, lookup)
