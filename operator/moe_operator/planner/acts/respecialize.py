"""Respecialize: train an Expert again because its own new text shows that it has drifted (``planner/drift.py``)."""

from datetime import datetime

from moe_formats.resources.drift import DriftStatus
from moe_formats.resources.expert_proposal import Effect, ExpertProposal, ExpertProposalSpec
from moe_formats.resources.expert_revision import Cause, ExpertRevision
from moe_formats.resources.lifecycle import Act
from moe_formats.resources.reasons import Reason
from moe_operator.planner.acts.policy import (
    CHANGE_OF_BITS,
    Found,
    Policy,
    current_or_why,
    measured_change,
    new_text,
    rounded,
    was_tried,
)
from moe_operator.planner.conditions import Why
from moe_operator.planner.lineage import by_name
from moe_operator.planner.respecialize import rehearsal_of
from moe_operator.state import Member

#: Share of the drift that is expected to be regained, and the least that is promised of its lower bound.
_EXPECTED, _PROMISED = 0.8, 0.5


def _trigger(member: Member, now: datetime) -> Found | None:
    found = _found(member)
    if isinstance(found, Why):
        return None
    drift = _drift_of(member, found.current)
    if drift is None or not drift.drifted or drift.cause != "QualityDrop":
        return None
    return found if not was_tried(member, Cause.DRIFT, found) else None


def _asked(member: Member, spec: ExpertProposalSpec, now: datetime) -> Found | Why:
    return _found(member)


def _found(member: Member) -> Found | Why:
    current, text = current_or_why(member), new_text(member)
    if isinstance(current, Why):
        return current
    name = current.metadata.name
    drift = _drift_of(member, current)
    windows = tuple(drift.windows) if drift is not None else text[1] if text is not None else ()
    rehearsal = (
        rehearsal_of(current, by_name(member.revisions), text[0], windows) if text is not None else None
    )
    if text is None or rehearsal is None:
        message = f"{name} and the revisions before it were trained on no other snapshot than the newest, so no text is new"
        return Why(Reason.NOT_POSSIBLE, message)
    if drift is None or drift.interval is None:
        nothing = "the drift of the current revision was not measured"
        return Found(current, name, f"a person proposes it; {nothing}", nothing, text[0], windows)
    value = drift.interval
    summary = (
        f"{name} gains {value.value:.1%} [{value.lower:.1%}, {value.upper:.1%}] less over its base on the newest text "
        f"({drift.clusters} clusters in {len(windows)} windows) than on the first"
    )
    return Found(current, name, summary, _promise(drift), text[0], windows)


def _drift_of(member: Member, current: ExpertRevision) -> DriftStatus | None:
    """Return what was measured of the current revision; None if it was measured of another one."""
    drift = member.expert.status.drift
    return drift if drift is not None and drift.revision == current.metadata.name else None


def _promise(drift: DriftStatus) -> Effect | str:
    interval, bound = drift.interval, drift.lower_bound
    if interval is None or bound is None or not drift.drifted:
        return "the revision has not drifted"
    change = rounded(-_EXPECTED * interval.value, -interval.upper, -_PROMISED * bound)
    return Effect(quantity=CHANGE_OF_BITS, scale="Logarithm", interval=change)


def _measured(member: Member, proposal: ExpertProposal, now: datetime) -> Effect | str | None:
    return measured_change(member, proposal.status.revision)


RESPECIALIZE = Policy(Act.RESPECIALIZE, Cause.DRIFT, _trigger, _asked, _measured)
