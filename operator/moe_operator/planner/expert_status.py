"""The status of an Expert: conditions, columns and events, from what the stages decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from moe_operator.api.conditions import Condition, ConditionType, condition, merge_conditions
from moe_operator.api.expert import ExpertStatus, Scores, TrainingStatus
from moe_operator.api.expert_revision import ExpertRevisionStatus, Verdict
from moe_operator.api.reasons import Reason
from moe_operator.builders.server import server_selector
from moe_operator.planner.attempts import Work
from moe_operator.planner.base import BaseDecision
from moe_operator.planner.blockage import blocked
from moe_operator.planner.data import DataDecision
from moe_operator.planner.lineage import by_name
from moe_operator.planner.making import Making
from moe_operator.planner.progress import training_status
from moe_operator.planner.rollout import Rollout, target_revision
from moe_operator.planner.targets import judge_targets, score_summary, targets_condition, targets_summary
from moe_operator.planner.validation import Finding, twins
from moe_operator.planner.wanted import Wanted
from moe_operator.state import Event, ExpertState


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What every stage of ``plan_expert`` decided."""

    state: ExpertState
    finding: Finding | None
    paused: bool
    data: DataDecision
    base: BaseDecision
    wanted: Wanted
    #: Experts whose first snapshot is awaited before a suite is drawn.
    awaited: tuple[str, ...]
    making: Making | None
    rollout: Rollout
    #: Whether this plan creates something.
    created: bool

    @property
    def generation(self) -> int:
        """Return the generation of the Expert that was looked at."""
        return self.state.expert.metadata.generation

    @property
    def newest(self) -> ExpertRevisionStatus | None:
        """Return the status of the revision that matters now: in the making or refused, else the current."""
        if self.making is not None:
            return self.making.status
        return self.wanted.current.status if self.wanted.current is not None else None

    @property
    def newest_name(self) -> str:
        """Return its name, or an empty text."""
        revision = self.making.revision if self.making is not None else self.wanted.current
        return revision.metadata.name if revision is not None else ""


def expert_status(decisions: Decisions, now: datetime) -> ExpertStatus:
    """Return the whole status of the Expert."""
    state, before = decisions.state, decisions.state.expert.status
    expert, wanted = state.expert, decisions.wanted
    target = target_revision(state, wanted.current)
    evidence = target.status.evidence if target is not None else None
    scores = evidence.scores if evidence is not None else None
    results = judge_targets(expert.spec.targets, scores)
    conditions = merge_conditions(before.conditions, _conditions(decisions, scores), now=now)
    phase, reason = _phase(decisions)
    base = decisions.base.parent
    serving = decisions.rollout.status
    return ExpertStatus(
        observed_generation=decisions.generation,
        phase=phase,
        reason=reason,
        conditions=list(conditions),
        revisions=max([before.revisions, *(item.spec.number for item in state.revisions)]),
        latest_revision=state.revisions[-1].metadata.name if state.revisions else before.latest_revision,
        current_revision=wanted.current.metadata.name if wanted.current is not None else None,
        base_revision=base.revision if base is not None else None,
        snapshot=decisions.data.snapshot,
        training=_training(decisions),
        scores=scores,
        score=score_summary(scores, domain=expert.spec.domain),
        targets=targets_summary(results),
        target_results=results,
        serving=serving,
        replicas=serving.replicas if serving is not None else 0,
        selector=_selector(decisions),
    )


def expert_events(decisions: Decisions, status: ExpertStatus) -> tuple[Event, ...]:
    """Return what is worth telling of the step from the status before to this one."""
    before = decisions.state.expert.status
    events = [
        *_data_events(decisions, status),
        *_revision_events(decisions, status),
        *_making_events(decisions),
        *_stall_events(before.conditions, status.conditions),
    ]
    if status.serving and status.serving.revision != (before.serving.revision if before.serving else None):
        events.append(Event(Reason.ROLLED_OUT, f"all traffic goes to {status.serving.revision}"))
    same_domain = twins(decisions.state)
    if before.observed_generation == 0 and same_domain:
        domain = decisions.state.expert.spec.domain
        message = f"domain {domain} is also that of {', '.join(same_domain)}; routing treats them as twins"
        events.append(Event(Reason.TWIN_DOMAIN, message, "Warning"))
    return tuple(events)


def _revision_events(decisions: Decisions, status: ExpertStatus) -> list[Event]:
    name = status.latest_revision
    if name is None or name == decisions.state.expert.status.latest_revision:
        return []
    cause = by_name(decisions.state.revisions)[name].spec.cause
    return [Event(Reason.REVISION_CREATED, f"{name} was made; cause: {cause}")]


def _data_events(decisions: Decisions, status: ExpertStatus) -> list[Event]:
    before, after = decisions.state.expert.status.snapshot, status.snapshot
    if after is None or (before is not None and before.request == after.request):
        return []
    if before is not None and before.digest == after.digest:
        message = f"{after.job} found the same data {after.digest[:19]}: nothing is trained for it"
        return [Event(Reason.DATA_UNCHANGED, message)]
    return [Event(Reason.SNAPSHOT_TAKEN, decisions.data.condition.message)]


def _making_events(decisions: Decisions) -> list[Event]:
    making = decisions.making
    if making is None:
        return []
    events, name = [], making.revision.metadata.name
    after = making.status
    live = by_name(decisions.state.revisions)[name].status
    if after.attempts > live.attempts:
        events.append(Event(Reason.TRAINING_STARTED, f"attempt {after.attempts} at {name}"))
    if after.artefact is not None and live.artefact is None:
        events.append(Event(Reason.TRAINED, f"{name}: {after.artefact.steps} steps"))
    verdict = after.verdict
    if verdict is not None and verdict != live.verdict:
        kind: Literal["Normal", "Warning"] = "Normal" if verdict.outcome == "Promoted" else "Warning"
        events.append(Event(Reason(verdict.reason), f"{name}: {verdict.message}"[:1000], kind))
    return events


def _stall_events(before: Sequence[Condition], after: Sequence[Condition]) -> list[Event]:
    def stalled(conditions: Sequence[Condition]) -> tuple[str, str] | None:
        found = next((item for item in conditions if item.type == ConditionType.STALLED), None)
        return (found.reason, found.message) if found is not None and found.status == "True" else None

    news = stalled(after)
    if news is None or news == stalled(before):
        return []
    return [Event(Reason(news[0]), news[1][:1000], "Warning")]


def _conditions(decisions: Decisions, scores: Scores | None) -> list[Condition]:
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
    stalled = _stalled(decisions)
    under_way = None if stalled is not None else _under_way(decisions)
    serving = decisions.rollout.condition
    scaled_to_zero = (
        decisions.state.expert.spec.serving.replicas == 0 and decisions.wanted.current is not None
    )
    ready = serving.status == "True" or scaled_to_zero
    if ready:
        first = _say(decisions, ConditionType.READY, True, Reason.READY, serving.message)
    else:
        reason, message = stalled or under_way or (Reason(serving.reason), serving.message)
        first = _say(decisions, ConditionType.READY, False, reason, message)
    return (
        first,
        _say(
            decisions,
            ConditionType.RECONCILING,
            under_way is not None,
            Reason.PROGRESSING if under_way is not None else (stalled[0] if stalled else Reason.SETTLED),
            under_way[1] if under_way is not None else "nothing is left to do",
        ),
        _say(
            decisions,
            ConditionType.STALLED,
            stalled is not None,
            stalled[0] if stalled else Reason.SETTLED,
            stalled[1] if stalled else "",
        ),
    )


def _stalled(decisions: Decisions) -> tuple[Reason, str] | None:
    """Return why nothing will change until somebody changes something, or None."""
    if decisions.finding is not None:
        return decisions.finding.reason, decisions.finding.message
    work = decisions.data.work
    if work is not None and work.state == "Failed":
        return Reason(decisions.data.condition.reason), decisions.data.condition.message
    verdict = _verdict(decisions)
    if verdict is None or verdict.outcome == "Promoted":
        return None
    if verdict.outcome == "Failed" or decisions.wanted.current is None:
        return Reason(verdict.reason), verdict.message
    return None


def _under_way(decisions: Decisions) -> tuple[Reason, str] | None:
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
        return _say(decisions, type_, False, Reason(newest.verdict.reason), newest.verdict.message)
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
        return _say(decisions, type_, False, Reason(newest.verdict.reason), newest.verdict.message)
    work = decisions.making.work if decisions.making is not None else None
    return _attempt(decisions, type_, Reason.EVALUATING, f"evaluating {name}", work)


def _attempt(
    decisions: Decisions, type_: ConditionType, reason: Reason, words: str, work: Work | None
) -> Condition:
    """Return how the attempt under way does, down to what its pod says."""
    if work is None or work.state in ("Wanted", "Backoff", "Ending"):
        if work is not None and work.incident is not None:
            message = f"{work.incident.message}; attempt {work.number} follows"
            return _say(decisions, type_, False, Reason.RETRYING, message)
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
    return _say(decisions, type_, verdict.outcome == "Promoted", Reason(verdict.reason), verdict.message)


def _phase(decisions: Decisions) -> tuple[str, str]:
    """Return a word for people, and the reason beside it."""
    serves = decisions.rollout.condition.status == "True"
    stalled = _stalled(decisions)
    if stalled is not None:
        return ("Serving" if serves else "Stalled"), stalled[0].value
    under_way = _under_way(decisions)
    if decisions.paused and (under_way is None or not _runs(decisions)):
        return "Paused", Reason.PAUSED.value
    if under_way is not None:
        return _phase_under_way(decisions), under_way[0].value
    verdict = _verdict(decisions)
    if verdict is not None and verdict.outcome != "Promoted":
        return ("Serving" if serves else "Ready"), verdict.reason
    if decisions.wanted.current is None:
        return "Pending", Reason.PENDING.value
    return ("Serving" if serves else "Ready"), decisions.rollout.condition.reason


def _phase_under_way(decisions: Decisions) -> str:
    if decisions.data.work is not None:
        return "Snapshot"
    if not decisions.base.ready or decisions.awaited:
        return "Waiting"
    if decisions.making is not None and decisions.making.status.verdict is None:
        return decisions.making.stage
    return "RollingOut" if decisions.wanted.inputs is None else "Pending"


def _runs(decisions: Decisions) -> bool:
    works = (decisions.data.work, decisions.making.work if decisions.making is not None else None)
    jobs = [work.job for work in works if work is not None and work.state == "Running"]
    return any(job is not None and not job.suspended for job in jobs)


def _training(decisions: Decisions) -> TrainingStatus | None:
    making, before = decisions.making, decisions.state.expert.status.training
    if making is None or making.stage == "Waiting":
        return before
    if making.status.artefact is not None:
        steps = making.status.artefact.steps
        done = TrainingStatus(summary="100%", step=steps, max_steps=steps, attempt=making.status.attempts)
        if before is None or before.attempt != done.attempt:
            return done
        return before.model_copy(update={"summary": "100%", "eta": "", "step": steps, "max_steps": steps})
    progress = making.work.job.progress if making.work is not None and making.work.job is not None else None
    return training_status(progress, attempt=making.status.attempts, before=before)


def _verdict(decisions: Decisions) -> Verdict | None:
    return decisions.making.status.verdict if decisions.making is not None else None


def _selector(decisions: Decisions) -> str:
    target = target_revision(decisions.state, decisions.wanted.current)
    if target is None:
        return ""
    labels = server_selector(expert=decisions.state.expert.metadata.name, revision=target.metadata.name)
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _say(
    decisions: Decisions, type_: ConditionType, status: bool | None, reason: Reason, message: str
) -> Condition:
    return condition(type_, status, reason, message, generation=decisions.generation)
