"""Which revision is wanted: the inputs that the spec and the data ask for, and the object that has them.

The same inputs are the same revision, whatever became of it: promoted before (the pointer moves back and
nothing is made), refused for good (nothing is made), or in the making (it goes on). Only inputs that no
revision has make another one.
"""

from dataclasses import dataclass

from moe_formats.job_config import SnapshotRef
from moe_formats.resources.expert_revision import (
    Cause,
    ExpertRevision,
    ExpertRevisionSpec,
    HoldoutInput,
    Inputs,
)
from moe_formats.resources.expert_status import SnapshotStatus
from moe_operator.planner.base import BaseDecision
from moe_operator.planner.cause import cause_of
from moe_operator.planner.identity import inputs_digest, suite_digest, training_input
from moe_operator.planner.lineage import by_name, current_of, is_promoted
from moe_operator.planner.parent import parent_for
from moe_operator.planner.suite import draw_suite
from moe_operator.state import ExpertState


@dataclass(frozen=True)
class Wanted:
    """What the Expert's spec and data ask for."""

    #: The promoted revision; serves unless another is pinned.
    current: ExpertRevision | None
    #: The revision to be made or judged, if it exists.
    revision: ExpertRevision | None = None
    #: What it is to be made of, while it does not exist.
    cause: Cause | None = None
    inputs: Inputs | None = None


def decide_wanted(state: ExpertState, base: BaseDecision, snapshot: SnapshotStatus | None) -> Wanted:
    """Return the current revision, and the one that is wanted where that is another.

    ``snapshot`` is None while there is none that answers what the spec asks.
    """
    current = current_of(state)
    if snapshot is None or not base.ready:
        return Wanted(current)
    cause = _cause(state, current, snapshot)
    if cause is None:
        return Wanted(current)
    inputs = _inputs(state, cause, current, base, snapshot)
    digest = inputs_digest(inputs)
    existing = next((item for item in state.revisions if item.spec.inputs_digest == digest), None)
    if existing is not None and is_promoted(existing):
        return Wanted(existing)
    if existing is not None:
        return Wanted(current, revision=existing)
    return Wanted(current, cause=cause, inputs=inputs)


def new_revision(state: ExpertState, wanted: Wanted, snapshot: SnapshotStatus) -> ExpertRevisionSpec:
    """Return the spec of the revision to make, its suite drawn now and frozen."""
    if wanted.cause is None or wanted.inputs is None:
        raise ValueError("no new revision is wanted")
    expert = state.expert
    own = HoldoutInput(domain=expert.spec.domain, expert=expert.metadata.name, window=snapshot.anchor)
    suite = draw_suite(state, own)
    return ExpertRevisionSpec(
        expert=expert.metadata.name,
        expert_uid=expert.metadata.uid,
        pool=expert.spec.pool,
        number=next_number(state),
        cause=wanted.cause,
        inputs=wanted.inputs,
        inputs_digest=inputs_digest(wanted.inputs),
        anchor=snapshot.anchor,
        newest=snapshot.newest,
        suite=suite,
        suite_digest=suite_digest(suite),
    )


def next_number(state: ExpertState) -> int:
    """Return a number that no revision of the Expert has had."""
    return max([state.expert.status.revisions, *(item.spec.number for item in state.revisions)]) + 1


def _cause(state: ExpertState, current: ExpertRevision | None, snapshot: SnapshotStatus) -> Cause | None:
    return cause_of(
        state.expert,
        data_digest=snapshot.digest,
        current=current,
        revisions=by_name(state.revisions),
    )


def _inputs(
    state: ExpertState,
    cause: Cause,
    current: ExpertRevision | None,
    base: BaseDecision,
    snapshot: SnapshotStatus,
) -> Inputs:
    parent = parent_for(cause, base=base.parent, current=current)
    return Inputs(
        parent=parent,
        preset=base.preset if parent is None else None,
        data=SnapshotRef(path=snapshot.path, digest=snapshot.digest),
        training=training_input(state.expert),
        seed=state.expert.spec.seed,
        run_id=state.expert.spec.run_id,
    )
