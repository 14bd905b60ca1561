"""The status of an ExpertRevision: what was decided, as conditions and a phase for people."""

from datetime import datetime

from moe_formats.resources.conditions import Condition, ConditionType, condition, merge_conditions
from moe_formats.resources.expert_revision import ExpertRevision, ExpertRevisionStatus
from moe_formats.resources.reasons import Reason
from moe_operator.planner.attempts import known_reason


def revision_status(
    revision: ExpertRevision, status: ExpertRevisionStatus, *, now: datetime
) -> ExpertRevisionStatus:
    """Return ``status`` with its phase and its conditions."""
    generation = revision.metadata.generation
    conditions = (
        *_kstatus(status, generation),
        _trained(status, generation),
        _evaluated(status, generation),
        _promoted(status, generation),
    )
    return status.model_copy(
        update={
            "observed_generation": generation,
            "phase": _phase(status),
            "conditions": list(merge_conditions(revision.status.conditions, conditions, now=now)),
        }
    )


def superseded_status(revision: ExpertRevision, *, by: str | None, now: datetime) -> ExpertRevisionStatus:
    """Return the status of a revision that was given up before it was decided; it can be taken up again."""
    message = f"{by or 'nothing'} is what the Expert asks for now; asking for these inputs again resumes here"
    generation = revision.metadata.generation
    conditions = (
        condition(ConditionType.READY, False, Reason.SUPERSEDED, message, generation=generation),
        condition(ConditionType.RECONCILING, False, Reason.SUPERSEDED, message, generation=generation),
        condition(ConditionType.STALLED, False, Reason.SUPERSEDED, message, generation=generation),
        _trained(revision.status, generation),
        _evaluated(revision.status, generation),
        condition(ConditionType.PROMOTED, False, Reason.SUPERSEDED, message, generation=generation),
    )
    return revision.status.model_copy(
        update={
            "observed_generation": generation,
            "phase": "Superseded",
            "conditions": list(merge_conditions(revision.status.conditions, conditions, now=now)),
        }
    )


def _phase(status: ExpertRevisionStatus) -> str:
    if status.verdict is not None:
        return status.verdict.outcome
    return "Training" if status.artefact is None else "Evaluating"


def _kstatus(status: ExpertRevisionStatus, generation: int) -> tuple[Condition, ...]:
    verdict = status.verdict
    if verdict is None:
        reason, message = Reason.PROGRESSING, _phase(status).lower()
        ready, reconciling, stalled = False, True, False
    else:
        reason, message = known_reason(verdict.reason), verdict.message
        ready, reconciling = verdict.outcome == "Promoted", False
        stalled = verdict.outcome == "Failed"
    return (
        condition(ConditionType.READY, ready, reason, message, generation=generation),
        condition(ConditionType.RECONCILING, reconciling, reason, message, generation=generation),
        condition(ConditionType.STALLED, stalled, reason, message, generation=generation),
    )


def _trained(status: ExpertRevisionStatus, generation: int) -> Condition:
    artefact = status.artefact
    if artefact is not None:
        message = f"{artefact.steps} steps, {artefact.tokens} tokens, final loss {artefact.final_loss:.4f} nats per token"
        return condition(ConditionType.TRAINED, True, Reason.TRAINED, message, generation=generation)
    if status.verdict is not None:
        reason, message = known_reason(status.verdict.reason), status.verdict.message
    else:
        reason, message = Reason.TRAINING, f"{status.attempts} attempts made"
    return condition(ConditionType.TRAINED, False, reason, message, generation=generation)


def _evaluated(status: ExpertRevisionStatus, generation: int) -> Condition:
    evidence = status.evidence
    if evidence is not None:
        against = evidence.current or "its base"
        message = f"measured against {against}; report {evidence.report[:19]}"
        return condition(ConditionType.EVALUATED, True, Reason.EVALUATED, message, generation=generation)
    if status.verdict is not None:
        reason, message = known_reason(status.verdict.reason), status.verdict.message
    else:
        reason, message = (
            Reason.PENDING,
            "training comes first" if status.artefact is None else "being measured",
        )
    return condition(ConditionType.EVALUATED, False, reason, message, generation=generation)


def _promoted(status: ExpertRevisionStatus, generation: int) -> Condition:
    verdict = status.verdict
    if verdict is None:
        return condition(
            ConditionType.PROMOTED, False, Reason.PENDING, "not judged yet", generation=generation
        )
    promoted = verdict.outcome == "Promoted"
    return condition(
        ConditionType.PROMOTED, promoted, known_reason(verdict.reason), verdict.message, generation=generation
    )
