"""Words the conditions of an Expert: what is the case, why, and what to do next."""

from collections.abc import Sequence

from moe_formats.resources.conditions import Condition, ConditionType
from moe_formats.resources.expert_status import Scores, TargetStatus
from moe_formats.resources.reasons import Reason
from moe_operator.planner.attempts import AWAITED, Work, known_reason
from moe_operator.planner.blockage import runs, stuck_job, waits_for_queue
from moe_operator.planner.conditions import Says, Why, evaluated, kstatus, promoted, say, trained
from moe_operator.planner.decisions import Decisions, Making
from moe_operator.planner.targets import targets_condition
from moe_operator.state import Role


def expert_conditions(
    decided: Decisions,
    *,
    stop: Why | None,
    work: Why | None,
    scores: Scores | None,
    results: Sequence[TargetStatus],
) -> list[Condition]:
    """Return every condition that applies, in the order in which a person would read them.

    ``stop`` is the result of ``stalled``, ``work`` is the result of ``under_way``, and ``results`` are the judged targets.
    """
    expert, generation = decided.state.expert, decided.generation
    conditions = [
        *_kstatus(decided, stop, work),
        decided.data.condition,
        decided.base.condition,
        say(ConditionType.TRAINED, _trained(decided), generation=generation),
        say(ConditionType.EVALUATED, _evaluated(decided), generation=generation),
        say(ConditionType.PROMOTED, _promoted(decided), generation=generation),
        targets_condition(expert, results, scores),
        decided.serving.condition,
    ]
    if decided.measuring.says is not None:
        conditions.append(say(ConditionType.DRIFTED, decided.measuring.says, generation=generation))
    if decided.paused:
        paused = Says(True, Reason.PAUSED, _who_paused(decided))
        conditions.append(say(ConditionType.PAUSED, paused, generation=generation))
    return conditions


def _kstatus(
    decided: Decisions, stop: Why | None, work: Why | None
) -> tuple[Condition, Condition, Condition]:
    """Return Ready (a revision serves), Reconciling (work is under way) and Stalled (somebody must act)."""
    serving = decided.serving.condition
    at_zero = decided.state.expert.spec.serving.replicas == 0 and decided.wanted.current is not None
    if serving.status == "True" or at_zero:
        ready = Says(True, Reason.READY, serving.message)
    else:
        ready = Says(False, *(stop or work or Why(Reason(serving.reason), serving.message)))
    rest = (
        Why(Reason.PAUSED, f"nothing is under way; {_who_paused(decided)}")
        if decided.paused and stop is None
        else None
    )
    return kstatus(ready=ready, work=work, stop=stop, rest=rest, generation=decided.generation)


def _who_paused(decided: Decisions) -> str:
    spec = decided.state.expert.spec
    return f"{'spec.paused' if spec.paused else f'spec.paused of pool {spec.pool}'} is true"


def stalled(decided: Decisions) -> Why | None:
    """Return why nothing will change until somebody changes something, or None."""
    if decided.mistake is not None:
        return Why(decided.mistake.reason, decided.mistake.message)
    work = decided.data.work
    if work is not None and (work.state == "Failed" or decided.data.condition.reason in AWAITED):
        return _of(decided.data.condition)
    verdict = decided.verdict
    if verdict is None or verdict.outcome == "Promoted":
        return None
    if verdict.outcome == "Failed" or decided.wanted.current is None:
        return Why(known_reason(verdict.reason), verdict.message)
    return None


def under_way(decided: Decisions) -> Why | None:
    """Return what is being done or awaited, or None if nothing is. Only for an Expert that is not stalled."""
    if not decided.paused or runs_a_job(decided) or _starts_a_server(decided):
        work = _work(decided)
        if work is not None:
            return work
    serving = decided.serving.condition
    if serving.reason in (Reason.WAITING_FOR_SERVER, Reason.WAITING_FOR_GATEWAY):
        return _of(serving)
    return None


def runs_a_job(decided: Decisions) -> bool:
    """Return whether a Job of the Expert is running, and not only queued."""
    works = (decided.data.work, decided.making.work if decided.making is not None else None)
    jobs = [work.job for work in works if work is not None and work.state == "Running"]
    return any(job is not None and not job.suspended for job in jobs)


def _starts_a_server(decided: Decisions) -> bool:
    making = decided.making
    return making is not None and making.status.verdict is None and making.stage == "Starting"


def _work(decided: Decisions) -> Why | None:
    """Return which work on data or on a revision is done or awaited, or None."""
    if decided.data.work is not None:
        return _of(decided.data.condition)
    if decided.data.fresh:
        return Why(
            Reason.PROGRESSING,
            "the new snapshot is compared with the one that the current revision was trained on",
        )
    if not decided.base.ready:
        return _of(decided.base.condition)
    if decided.making is not None and decided.making.status.verdict is None:
        return _made(decided, decided.making)
    if decided.wanted.inputs is not None:
        awaited = ", ".join(decided.awaited)
        if awaited:
            return Why(Reason.WAITING_FOR_DATA, f"waiting for the first snapshots of {awaited}")
        return Why(Reason.PROGRESSING, "a new revision is being created")
    return None


def _of(condition: Condition) -> Why:
    return Why(Reason(condition.reason), condition.message)


def _made(decided: Decisions, making: Making) -> Why:
    if making.stage == "Starting":
        name = decided.subject_name
        return Why(
            Reason.WAITING_FOR_SERVER,
            f"a server of {name} is starting; it gets no traffic before it is ready",
        )
    says = _trained(decided) if making.stage == "Training" else _evaluated(decided)
    return Why(says.reason, says.message)


def _trained(decided: Decisions) -> Says:
    name, status = decided.subject_name, decided.subject_status
    if name is None or status is None:
        return Says(False, Reason.PENDING, "no revision has been created yet")
    return trained(name, status, _attempt(decided, Reason.TRAINING, f"training {name}"))


def _evaluated(decided: Decisions) -> Says:
    name, status = decided.subject_name, decided.subject_status
    if name is None or status is None:
        return Says(False, Reason.PENDING, "no revision has been created yet")
    work = decided.making.work if decided.making is not None else None
    graded = work is not None and work.job is not None and work.job.role is Role.GRADE
    words = f"graders are judging the answers of {name}" if graded else f"evaluating {name}"
    return evaluated(name, status, _attempt(decided, Reason.EVALUATING, words))


def _promoted(decided: Decisions) -> Says:
    pin = decided.state.expert.spec.revision
    if pin is not None and decided.mistake is None:
        return Says(True, Reason.PINNED, f"spec.revision pins {pin}")
    name, status = decided.subject_name, decided.subject_status
    if name is None or status is None:
        return Says(False, Reason.PENDING, "no revision has been created yet")
    return promoted(name, status)


def _attempt(decided: Decisions, reason: Reason, words: str) -> Why:
    """Return the reason and the words for the current attempt, including why its pod does not run."""
    work: Work | None = decided.making.work if decided.making is not None else None
    if work is None or work.state in ("Wanted", "Backoff", "Ending"):
        if work is not None and work.incident is not None:
            cause = work.incident.reason
            shown = cause if cause in (Reason.GRADER_FAILED, Reason.REPORT_CONTESTED) else Reason.RETRYING
            return Why(shown, f"{work.incident.message}; attempt {work.number} follows")
        if decided.paused and not decided.create:
            return Why(Reason.PAUSED, f"{words}: paused")
        return Why(reason, words)
    job = work.job
    if job is not None and job.suspended and job.queue:
        return Why(reason, f"{words}: it {waits_for_queue(job)}")
    if job is not None and job.suspended:
        return Why(reason, f"{words}: queued for a place in the pool's budget")
    if job is not None and job.doubt is not None:
        return Why(Reason.REPORT_CONTESTED, f"{words}: {job.doubt}")
    why = stuck_job(job, decided.now) if job is not None else None
    if why is not None:
        return Why(why.reason, f"{words}: {why.message}")
    if job is not None and not runs(job.pods):
        return Why(Reason.STARTING, f"{words}: the pod of attempt {work.number} is starting")
    return Why(reason, f"{words}, attempt {work.number}")
