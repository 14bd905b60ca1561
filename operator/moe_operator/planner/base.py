"""Decides what an Expert starts from: a revision of its base Expert, a preset, or a checkpoint in a data store.

The Expert's first revision pins the revision of the base that is promoted at that time. A later revision of the base
does not retrain the Expert: the pin stays until the spec names another base, or until a revision of the Expert that was
made from a newer one is promoted. An Expert depends on the base's artefact and never on its object: the pin is read
from the Expert's own revisions, which record it.
"""

from dataclasses import dataclass

from moe_formats import store
from moe_formats.job_config import ArtefactRef
from moe_formats.resources.conditions import Condition, ConditionType, condition
from moe_formats.resources.expert import Expert
from moe_formats.resources.reasons import Reason
from moe_operator.planner.lineage import WithRevisions, by_name, current_of, parent_ref, root_of
from moe_operator.planner.names import expert_of
from moe_operator.state import ExpertState

#: Used in place of a revision's name for a checkpoint in a data store. No revision of an Expert can have this name.
IMPORTED = "imported"


@dataclass(frozen=True)
class BaseDecision:
    """What to start from: a parent or a preset, or neither while the base is awaited."""

    condition: Condition
    ready: bool
    parent: ArtefactRef | None = None
    preset: str | None = None


def decide_base(state: ExpertState) -> BaseDecision:
    """Return what a revision for a changed spec starts from."""
    base = state.expert.spec.base
    outside = imported_base(state)
    if outside is not None:
        message = f"starts from the checkpoint {base.store}/{base.path}; what it was trained on is unknown"
        return BaseDecision(_say(state, True, Reason.IMPORTED, message), ready=True, parent=outside)
    if base.expert is None:
        message = f"initialised from the preset {base.preset}"
        return BaseDecision(_say(state, True, Reason.FROM_PRESET, message), ready=True, preset=base.preset)
    pinned = artefact_of_base(state)
    if pinned is not None:
        message = f"branches from {pinned.revision}"
        if pinned.contamination is not None:
            message += "; not everything that it was trained on is known"
        return BaseDecision(_say(state, True, Reason.BASE_PINNED, message), ready=True, parent=pinned)
    return BaseDecision(
        _say(state, False, Reason.WAITING_FOR_BASE, _why_not(state, base.expert)), ready=False
    )


def imported_base(state: ExpertState) -> ArtefactRef | None:
    """Return the checkpoint in a data store that the spec names, at the path to which the snapshot Job copies it.

    None if the spec names none.
    """
    base = state.expert.spec.base
    if base.digest is None or state.pool is None:
        return None
    path = store.imported(state.pool.metadata.uid, base.digest)
    return ArtefactRef(revision=IMPORTED, path=path, digest=base.digest, contamination="Unknown")


def artefact_of_base(state: ExpertState) -> ArtefactRef | None:
    """Return the revision of the spec's base Expert to start from: the pinned one, otherwise the current one, or None."""
    pinned = pinned_base(state)
    if pinned is None and state.base_revision is not None:
        return parent_ref(state.base_revision)
    return pinned


def root_base(state: ExpertState) -> Expert | None:
    """Return the Expert that the spec's base Expert descends from, if that one starts from a checkpoint in a data store.

    By their specs as they are now, so it says something only while the base Expert has no artefact: what is pinned may
    descend from another checkpoint than the base Expert starts from by now.
    """
    seen: set[str] = set()
    expert: Expert | None = state.expert
    while expert is not None and (name := expert.spec.base.expert) is not None and name not in seen:
        seen.add(name)
        expert = state.peers.get(name)
    return expert if seen and expert is not None and expert.spec.base.digest is not None else None


def pinned_base(state: WithRevisions) -> ArtefactRef | None:
    """Return the revision of the spec's base that this Expert has already branched from, or None.

    It is the parent of the first revision in the current revision's line of refreshes. While no revision is current,
    it is the parent of the newest revision that has the spec's base as its parent.
    """
    current = current_of(state)
    roots = [root_of(current, by_name(state.revisions))] if current is not None else []
    for revision in (*roots, *reversed(state.revisions)):
        parent = revision.spec.inputs.parent
        if parent is not None and expert_of(parent.revision) == state.expert.spec.base.expert:
            return parent
    return None


def _why_not(state: ExpertState, name: str) -> str:
    peer = state.peers.get(name)
    if peer is None:
        return f"the pool has no Expert {name} yet: create it, or name another base"
    text = f"the base {name} has no promoted revision yet"
    if peer.status.phase:
        text += f"; it is {peer.status.phase}"
        if peer.status.reason:
            text += f" ({peer.status.reason})"
    return text


def _say(state: ExpertState, status: bool, reason: Reason, message: str) -> Condition:
    generation = state.expert.metadata.generation
    return condition(ConditionType.BASE_MODEL_READY, status, reason, message, generation=generation)
