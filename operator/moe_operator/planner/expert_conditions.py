"""The conditions of an Expert: what is, why, and what to do next, in words."""

from moe_formats.resources.conditions import Condition, ConditionType, condition
from moe_formats.resources.expert_status import Scores
from moe_formats.resources.reasons import Reason
from moe_operator.planner.attempts import Work, known_reason
from moe_operator.planner.blockage import blocked
from moe_operator.planner.decisions import Decisions
from moe_operator.planner.making import Making
from moe_operator.planner.targets import judge_targets, targets_condition
from moe_operator.state import Role


def expert_conditions(decisions: Decisions, scores: Scores | None) -> list[Condition]:
    """Return every condition that applies, in the order in which they are read."""
    expert = decisions.state.expert
    conditions = [
        *_kstatus(decisions),
        decisions.data.condition,
        decisions.base.condition,
        _trained(decisions),
        _evaluated(decisions),
        _promoted(decisions),
        targets_condition(expert, judge_targets(expert.spec.targets, scores), scores),
        decisions.rollout.condition,
    ]
    if decisions.paused:
        whose = "spec.paused" if expert.spec.paused else f"spec.paused of pool {expert.spec.pool}"
        conditions.append(_say(decisions, ConditionType.PAUSED, True, Reason.PAUSED, f"{whose} is true"))
    return conditions


def _kstatus(decisions: Decisions) -> tuple[Condition, Condition, Condition]:
    """Return Ready (something serves), Reconciling (work is under way), Stalled (somebody must act)."""
    stop = stalled(decisions)
    work = None if stop is not None else under_way(decisions)
    serving = decisions.rollout.condition
    at_zero = decisions.state.expert.spec.serving.replicas == 0 and decisions.wanted.current is not None
    if serving.status == "True" or at_zero:
        ready = _say(decisions, ConditionType.READY, True, Reason.READY, serving.message)
    else:
        reason, message = stop or work or (Reason(serving.reason), serving.message)
        ready = _say(decisions, ConditionType.READY, False, reason, message)
    why, words = stop or (Reason.SETTLED, "")
    reconciling = (Reason.PROGRESSING, work[1]) if work is not None else (why, "nothing is left to do")
    return (
        ready,
        _say(decisions, ConditionType.RECONCILING, work is not None, *reconciling),
        _say(decisions, ConditionType.STALLED, stop is not None, why, words),
    )


def stalled(decisions: Decisions) -> tuple[Reason, str] | None:
    """Return why nothing will change until somebody changes something, or None."""
    if decisions.finding is not None:
        return decisions.finding.reason, decisions.finding.message
    work = decisions.data.work
    if work is not None and work.state == "Failed":
        return Reason(decisions.data.condition.reason), decisions.data.condition.message
    verdict = decisions.verdict
    if verdict is None or verdict.outcome == "Promoted":
        return None
    if verdict.outcome == "Failed" or decisions.wanted.current is None:
        return known_reason(verdict.reason), verdict.message
    return None


def under_way(decisions: Decisions) -> tuple[Reason, str] | None:
    """Return what is being done or awaited, or None where nothing is left to do."""
    if decisions.data.work is not None:
        return Reason(decisions.data.condition.reason), decisions.data.condition.message
    if not decisions.base.ready:
        return Reason(decisions.base.condition.reason), decisions.base.condition.message
    if decisions.making is not None and decisions.making.status.verdict is None:
        return _made(decisions, decisions.making)
    if decisions.wanted.inputs is not None:
        awaited = ", ".join(decisions.awaited)
        words = f"waits for the first snapshots of {awaited}" if awaited else "a new revision is being made"
        return Reason.WAITING_FOR_DATA if awaited else Reason.PROGRESSING, words
    rollout = decisions.rollout.condition
    if rollout.reason in (Reason.WAITING_FOR_SERVER, Reason.WAITING_FOR_GATEWAY):
        return Reason(rollout.reason), rollout.message
    return None


def _made(decisions: Decisions, making: Making) -> tuple[Reason, str]:
    if making.stage == "Starting":
        name = decisions.newest_name
        return Reason.WAITING_FOR_SERVER, f"a server of {name} starts; it gets no traffic before it answers"
    stage = _trained(decisions) if making.stage == "Training" else _evaluated(decisions)
    return Reason(stage.reason), stage.message


def _trained(decisions: Decisions) -> Condition:
    newest, type_ = decisions.newest, ConditionType.TRAINED
    if newest is None:
        return _say(decisions, type_, False, Reason.PENDING, "no revision has been made yet")
    name = decisions.newest_name
    if newest.artefact is not None:
        message = f"{name}: {newest.artefact.steps} steps, {newest.artefact.tokens} tokens"
        return _say(decisions, type_, True, Reason.TRAINED, message)
    if newest.verdict is not None:
        return _say(decisions, type_, False, known_reason(newest.verdict.reason), newest.verdict.message)
    work = decisions.making.work if decisions.making is not None else None
    return _attempt(decisions, type_, Reason.TRAINING, f"training {name}", work)


def _evaluated(decisions: Decisions) -> Condition:
    newest, type_ = decisions.newest, ConditionType.EVALUATED
    if newest is None or (newest.artefact is None and newest.verdict is None):
        return _say(decisions, type_, False, Reason.PENDING, "no revision has been trained yet")
    name = decisions.newest_name
    if newest.evidence is not None:
        return _say(decisions, type_, True, Reason.EVALUATED, f"{name} was measured")
    if newest.verdict is not None:
        return _say(decisions, type_, False, known_reason(newest.verdict.reason), newest.verdict.message)
    work = decisions.making.work if decisions.making is not None else None
    graded = work is not None and work.job is not None and work.job.role is Role.GRADE
    words = f"graders judge what {name} answered" if graded else f"evaluating {name}"
    return _attempt(decisions, type_, Reason.EVALUATING, words, work)


def _attempt(
    decisions: Decisions, type_: ConditionType, reason: Reason, words: str, work: Work | None
) -> Condition:
    """Return how the attempt under way does, down to what its pod says."""
    if work is None or work.state in ("Wanted", "Backoff", "Ending"):
        if work is not None and work.incident is not None:
            message = f"{work.incident.message}; attempt {work.number} follows"
            told = work.incident.reason
            shown = told if told is Reason.GRADER_FAILED else Reason.RETRYING
            return _say(decisions, type_, False, shown, message)
        if decisions.paused and not decisions.created:
            return _say(decisions, type_, False, Reason.PAUSED, f"{words}: paused")
        return _say(decisions, type_, False, reason, words)
    job = work.job
    if job is not None and job.suspended:
        return _say(decisions, type_, False, reason, f"{words}: queued for a place in the pool's budget")
    why = blocked(job.pods) if job is not None else None
    if why is not None:
        return _say(decisions, type_, False, Reason.WAITING_FOR_CAPACITY, f"{words}: {why}")
    return _say(decisions, type_, False, reason, f"{words}, attempt {work.number}")


def _promoted(decisions: Decisions) -> Condition:
    newest, type_ = decisions.newest, ConditionType.PROMOTED
    if decisions.state.expert.spec.revision is not None and decisions.finding is None:
        message = f"spec.revision pins {decisions.state.expert.spec.revision}"
        return _say(decisions, type_, True, Reason.PINNED, message)
    if newest is None or newest.verdict is None:
        return _say(decisions, type_, False, Reason.PENDING, "the newest revision has not been judged yet")
    verdict = newest.verdict
    return _say(
        decisions, type_, verdict.outcome == "Promoted", known_reason(verdict.reason), verdict.message
    )


def _say(
    decisions: Decisions, type_: ConditionType, status: bool | None, reason: Reason, message: str
) -> Condition:
    return condition(type_, status, reason, message, generation=decisions.generation)
