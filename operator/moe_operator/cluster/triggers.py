"""Decides which reconciled objects have to be looked at again after a change. A pure function, given by this table.

| Change of | Looked at first | Looked at afterwards |
|---|---|---|
| an Expert, or another reconciled member of a pool | itself, its Expert and its pool | |
| an Expert's spec, snapshot, current revision, condition Stalled or existence | itself and its pool | all members of its pool |
| an Expert or an ExpertRevision, besides | the proposals about its Expert that may still change | |
| a proposal, besides | the proposals of its pool that wait for their turn or for the budget | |
| an ExpertRevision, a Job or another child | its Expert if it has one, and its pool | |
| a pool | itself | all its members |
| a PersistentVolumeClaim | the pools and Experts that name it, and these Experts' pools | all members of the pools that name it |
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from moe_formats.resources import labels
from moe_formats.resources.expert_pool import claim_of
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.confine import confined
from moe_operator.cluster.kinship import owners_of
from moe_operator.state import Key, Manifest

#: For each reconciled kind, the function that returns the name of an object's pool. It is a column of ``subjects.py``.
PoolOf = Mapping[str, Callable[[Manifest], str]]


class Concerned(NamedTuple):
    """Keys to look at again: those of ``first`` before those of ``then``."""

    first: frozenset[Key] = frozenset()
    then: frozenset[Key] = frozenset()


def concerned(old: Manifest | None, new: Manifest | None, lookup: Cache, pool_of: PoolOf) -> Concerned:
    """Return the keys to look at again after an object changed from ``old`` to ``new``; None: it did not or does not exist."""
    either = new if new is not None else old
    if either is None:
        return Concerned()
    kind, namespace = either["kind"], either["metadata"].get("namespace", "")
    if kind == "ExpertPool":
        pools = {either["metadata"]["name"]}
        first = {Key("ExpertPool", namespace, name) for name in pools}
    elif kind == "PersistentVolumeClaim":
        pools = _pools_of_claim(either, lookup)
        first = {Key("ExpertPool", namespace, name) for name in pools}
        for reader in _readers(either, lookup):
            first |= _own_keys(reader, lookup, pool_of)
    else:
        first = {key for item in (old, new) if item is not None for key in _own_keys(item, lookup, pool_of)}
        first |= set(_proposals(either, lookup))
        changed = kind == "Expert" and _seen_by_peers(old) != _seen_by_peers(new)
        pools = {key.name for key in first if key.kind == "ExpertPool"} if changed else set()
    then = {key for pool in pools for key in _members(namespace, pool, lookup, pool_of)}
    return Concerned(frozenset(first), frozenset(then - first))


def _own_keys(manifest: Manifest, lookup: Cache, pool_of: PoolOf) -> set[Key]:
    """Return the keys of the object's Expert and pool, and its own if its kind is reconciled.

    Both what it names and the owners of its owners are looked at: looking at a key once more does no harm, and an object
    whose labels somebody took away still concerns its owner.
    """
    namespace, keys = manifest["metadata"]["namespace"], set()
    for item in (manifest, *owners_of(lookup, manifest)):
        said = labels.belongings(item)
        keys |= {Key("ExpertPool", namespace, said.pool), Key("Expert", namespace, said.expert)}
        if item["kind"] in pool_of:
            keys.add(Key(item["kind"], namespace, item["metadata"]["name"]))
    return {key for key in keys if key.name}


def _proposals(changed: Manifest, lookup: Cache) -> Iterator[Key]:
    """Yield the keys of the proposals that depend on an Expert, a revision or another proposal that has changed."""
    kind, namespace, said = changed["kind"], changed["metadata"]["namespace"], labels.belongings(changed)
    if kind not in ("Expert", "ExpertRevision", "ExpertProposal"):
        return
    expert = changed["metadata"]["name"] if kind == "Expert" else said.expert
    for item in lookup.of_pool("ExpertProposal", namespace, said.pool):
        phase = (item.get("status") or {}).get("phase")
        about = labels.belongings(item).expert == expert
        ended = phase in ("Rejected", "Expired", "Void", "Undone")
        if phase == "Approved" if kind == "ExpertProposal" else about and not ended:
            yield Key("ExpertProposal", namespace, item["metadata"]["name"])


def _seen_by_peers(expert: Manifest | None) -> Any:
    """Return the part of an Expert that decisions about other Experts depend on."""
    if expert is None:
        return None
    metadata, status = expert["metadata"], expert.get("status") or {}
    reported = status.get("snapshot"), status.get("currentRevision"), _holds(status, "Stalled")
    return metadata["uid"], metadata.get("generation"), metadata.get("deletionTimestamp"), reported


def _holds(status: Manifest, type_: str) -> bool:
    conditions = status.get("conditions") or []
    return any(item["type"] == type_ and item["status"] == "True" for item in conditions)


def _members(namespace: str, pool: str, lookup: Cache, pool_of: PoolOf) -> Iterator[Key]:
    for kind in pool_of:
        for member in lookup.of_pool(kind, namespace, pool):
            yield Key(kind, namespace, member["metadata"]["name"])


def _pools_of_claim(claim: Manifest, lookup: Cache) -> set[str]:
    """Return the names of the pools that a claim was created for, or that name it as their store or for an evaluator."""
    name = claim["metadata"]["name"]
    pools = {(claim["metadata"].get("labels") or {}).get(labels.POOL, "")}
    for pool in _beside(claim, "ExpertPool", lookup):
        with confined(pool, "reading which claims it names"):
            own, spec = pool["metadata"]["name"], pool.get("spec") or {}
            evaluators = (spec.get("evaluation") or {}).get("evaluators") or []
            store = claim_of(own, (spec.get("storage") or {}).get("claim"))
            if name in [store, *(item.get("claim") for item in evaluators)]:
                pools.add(own)
    return pools - {""}


def _readers(claim: Manifest, lookup: Cache) -> list[Manifest]:
    """Return the Experts that name a claim as a source."""
    name = claim["metadata"]["name"]

    def sources(expert: Manifest) -> list[Manifest]:
        return ((expert.get("spec") or {}).get("data") or {}).get("sources") or []

    readers = []
    for expert in _beside(claim, "Expert", lookup):
        with confined(expert, "reading which claims it names"):
            if any(item.get("claim") == name for item in sources(expert)):
                readers.append(expert)
    return readers


def _beside(claim: Manifest, kind: str, lookup: Cache) -> Iterator[Manifest]:
    """Yield the objects of a kind in a claim's namespace."""
    namespace = claim["metadata"].get("namespace", "")
    return (item for item in lookup.all(kind) if item["metadata"].get("namespace", "") == namespace)
