"""Builds the status of revisions: what was decided, as conditions and as a phase for people."""

from collections.abc import Iterator
from datetime import datetime

from moe_formats.resources.conditions import ConditionType, merge_conditions
from moe_formats.resources.expert_revision import ExpertRevision, ExpertRevisionStatus
from moe_formats.resources.reasons import Reason
from moe_operator.planner.attempts import known_reason
from moe_operator.planner.conditions import Says, Why, evaluated, kstatus, promoted, say, trained
from moe_operator.planner.decisions import Decisions
from moe_operator.planner.status_writes import status_write
from moe_operator.state import StatusWrite


def revision_writes(decided: Decisions) -> tuple[StatusWrite, ...]:
    """Return the status writes of the revision that is made, of those that it superseded, and of those that proposals move."""
    return tuple(write for revision, status in _statuses(decided) for write in status_write(revision, status))


def _statuses(decided: Decisions) -> Iterator[tuple[ExpertRevision, ExpertRevisionStatus]]:
    making, moved = decided.making, decided.moved
    for revision in decided.state.revisions:
        if (before := moved.get(revision.metadata.name)) is not None:
            yield before, _decided_status(before, revision.status, now=decided.now)
    if making is not None and making.revision.metadata.name not in moved:
        yield making.revision, _decided_status(making.revision, making.status, now=decided.now)
    if decided.subject_is_known:
        for revision in decided.state.revisions:
            if revision.status.verdict is None and revision.metadata.name != decided.subject_name:
                yield revision, _superseded_status(revision, by=decided.subject_name, now=decided.now)


def _decided_status(
    revision: ExpertRevision, status: ExpertRevisionStatus, *, now: datetime
) -> ExpertRevisionStatus:
    """Return ``status`` with its phase and its conditions."""
    verdict, phase = status.verdict, _phase(status)
    if verdict is None:
        ready, work = Says(False, Reason.PROGRESSING, phase.lower()), Why(Reason.PROGRESSING, phase.lower())
        gate = promoted(revision.metadata.name, status)
        return _said(revision, status, phase, ready, gate=gate, work=work, stop=None, now=now)
    why = Why(known_reason(verdict.reason), verdict.message)
    ready = Says(verdict.outcome == "Promoted", *why)
    stop = why if verdict.outcome == "Failed" else None
    return _said(revision, status, phase, ready, gate=ready, work=None, stop=stop, now=now)


def _superseded_status(revision: ExpertRevision, *, by: str | None, now: datetime) -> ExpertRevisionStatus:
    """Return the status of a revision that was given up before the gate decided; it can be resumed."""
    message = (
        f"{by or 'nothing'} is what the Expert asks for now; if its spec and data ask for these inputs again, making this "
        "revision continues"
    )
    ready = Says(False, Reason.SUPERSEDED, message)
    return _said(revision, revision.status, "Superseded", ready, gate=ready, work=None, stop=None, now=now)


def _said(
    revision: ExpertRevision,
    status: ExpertRevisionStatus,
    phase: str,
    ready: Says,
    *,
    gate: Says,
    work: Why | None,
    stop: Why | None,
    now: datetime,
) -> ExpertRevisionStatus:
    name, generation = revision.metadata.name, revision.metadata.generation
    conditions = (
        *kstatus(ready=ready, work=work, stop=stop, generation=generation),
        say(ConditionType.TRAINED, trained(name, status), generation=generation),
        say(ConditionType.EVALUATED, evaluated(name, status), generation=generation),
        say(ConditionType.PROMOTED, gate, generation=generation),
    )
    return status.model_copy(
        update={
            "observed_generation": generation,
            "phase": phase,
            "reason": ready.reason.value,
            "conditions": list(merge_conditions(revision.status.conditions, conditions, now=now)),
        }
    )


def _phase(status: ExpertRevisionStatus) -> str:
    if status.verdict is not None:
        return status.verdict.outcome
    return "Training" if status.artefact is None else "Evaluating"
