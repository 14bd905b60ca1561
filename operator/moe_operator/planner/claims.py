"""Decides which PersistentVolumeClaims may be used. Without this, who writes an Expert could read any claim through a model.

source  A claim that an Expert's data or an evaluator names, to be read. Its label ``labels.USE`` has to say ``source``,
        or a data store that the namespace may use has to name it, which is the platform owner's word. A claim that is
        only named by such a data store is not looked at here.
store   A claim that a pool's storage names, to be written. Its label has to say ``store``, or the operator made it for
        this pool. Several pools may share one: each has a folder of its own in it.

Labels are set by those who may change the claim. A claim that the operator made is the store of one pool and nothing
else, whatever its label says. If a label is removed, nothing new starts, and what runs and serves goes on.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Literal

from moe_formats.resources import labels
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.reasons import Reason
from moe_operator.config import OperatorConfig
from moe_operator.planner.conditions import Why
from moe_operator.planner.evaluators import asked_evaluators
from moe_operator.state import ObservedClaim, ObservedJob, PoolState

Use = Literal["source", "store"]
Claims = Mapping[str, ObservedClaim]


def refused_store(pool: ExpertPool, claims: Claims) -> Why | None:
    """Return why a pool may not write to its claim, or None: also if the operator has yet to make that claim."""
    claim, size = claims.get(pool.claim), pool.spec.storage.size
    made_here = size is not None if claim is None else claim.made_for == pool.metadata.name
    if made_here:
        return None
    field = "spec.storage.claim" if size is None else "the claim for spec.storage.size"
    return _refused(f"{field} of pool {pool.metadata.name}", pool.claim, claims, "store")


def refused_source(
    expert: Expert, pool: ExpertPool | None, claims: Claims, config: OperatorConfig
) -> Why | None:
    """Return why an Expert may not read a claim that it or one of its evaluators names, or None."""
    usable = config.usable_stores(expert.metadata.namespace).values()
    listed = {store.claim for store in usable if store.claim is not None}
    refusals = (_refused(field, name, claims, "source", listed) for field, name in _sources(expert, pool))
    return next((refusal for refusal in refusals if refusal is not None), None)


def withdrawn_jobs(state: PoolState, config: OperatorConfig) -> tuple[ObservedJob, ...]:
    """Return the suspended Jobs that may no longer start. They are deleted, and created again once they may."""
    waiting = [job for job in state.jobs if job.state == "Suspended" and not job.deleting]
    if refused_store(state.pool, state.claims) is not None:
        return tuple(waiting)
    refused = {
        name
        for name, expert in state.experts.items()
        if refused_source(expert, state.pool, state.claims, config) is not None
    }
    return tuple(job for job in waiting if job.expert in refused)


def _sources(expert: Expert, pool: ExpertPool | None) -> Iterator[tuple[str, str]]:
    """Yield the claims that an Expert's snapshot reads, each with the words for the field that names it."""
    for number, source in enumerate(expert.spec.data.sources):
        if source.claim is not None:
            yield f"spec.data.sources[{number}].claim", source.claim
    for item in asked_evaluators(expert, pool):
        if item.claim is not None:
            yield f"the claim of evaluator {item.name!r} of pool {expert.spec.pool}", item.claim


def _refused(field: str, name: str, claims: Claims, use: Use, listed: Collection[str] = ()) -> Why | None:
    claim, label = claims.get(name), f"{labels.USE}={use}"
    other = "name another claim" if use == "source" else "create another pool, since a pool keeps its claim"
    if claim is None:
        words = f"{field} is {name!r}, and the namespace has no PersistentVolumeClaim of that name"
        return Why(Reason.CLAIM_NOT_FOUND, f"{words}: create it with the label {label}, or {other}")
    if claim.made_for:
        words = f"{field} is {name!r}, which is the store of pool {claim.made_for} and may be used for nothing else"
        return Why(Reason.CLAIM_NOT_ALLOWED, f"{words}: {other}")
    if claim.use == use or name in listed:
        return None
    command = f"kubectl label {'--overwrite ' if claim.use else ''}pvc {name} {label}"
    said = f"says {claim.use!r}" if claim.use else "is missing"
    return Why(
        Reason.CLAIM_NOT_ALLOWED,
        f"{field} is {name!r}, and the label {labels.USE} of that claim {said}. If it may be used as a {use}, "
        f"somebody who may change it has to run `{command}`; otherwise {other}",
    )
