"""Builds the status of an Expert, its columns and conditions, from what the stages decided."""

from moe_formats.job_report import Progress
from moe_formats.resources.conditions import merge_conditions
from moe_formats.resources.expert_status import ExpertStatus, TrainingStatus
from moe_formats.resources.reasons import Reason
from moe_operator.builders.server import server_selector
from moe_operator.planner.analysis import analyse_expert, newest_proposal
from moe_operator.planner.conditions import Why
from moe_operator.planner.decisions import Decisions
from moe_operator.planner.expert_conditions import expert_conditions, runs_a_job, stalled, under_way
from moe_operator.planner.targets import judge_targets, score_summary, targets_summary

#: Text of the PROGRESS column while a training that ran before waits for its queue.
QUEUED = "queued"


def expert_status(decided: Decisions) -> ExpertStatus:
    """Return the whole new status of the Expert."""
    state, before = decided.state, decided.state.expert.status
    expert, wanted = state.expert, decided.wanted
    target = decided.serving.target
    evidence = target.status.evidence if target is not None else None
    scores = evidence.scores if evidence is not None else None
    results = judge_targets(expert.spec.targets, scores)
    stop = stalled(decided)
    work = under_way(decided) if stop is None else None
    conditions = expert_conditions(decided, stop=stop, work=work, scores=scores, results=results)
    analysis = analyse_expert(
        expert.metadata.uid,
        state.traffic,
        scores=scores,
        drift=decided.measuring.status,
        conditions=conditions,
        proposals=state.proposals,
        before=before.analysis,
        now=decided.now,
    )
    proposal = newest_proposal(state.proposals)
    phase, reason = _phase(decided, stop, work)
    base = decided.base.parent
    serving = decided.serving.status
    return ExpertStatus(
        observed_generation=decided.generation,
        phase=phase,
        reason=reason,
        conditions=list(merge_conditions(before.conditions, conditions, now=decided.now)),
        revisions=max([before.revisions, *(item.spec.number for item in state.revisions)]),
        latest_revision=state.revisions[-1].metadata.name if state.revisions else before.latest_revision,
        current_revision=wanted.current.metadata.name if wanted.current is not None else None,
        base_revision=base.revision if base is not None else None,
        snapshot=decided.data.snapshot,
        refresh=decided.data.refresh,
        training=_training(decided),
        scores=scores,
        score=score_summary(scores, domain=expert.spec.domain),
        targets=targets_summary(results),
        target_results=results,
        serving=serving,
        drift=decided.measuring.status,
        proposal=proposal.metadata.name if proposal is not None else None,
        analysis=analysis,
        replicas=serving.replicas if serving is not None else 0,
        selector=_selector(decided),
    )


def _phase(decided: Decisions, stop: Why | None, work: Why | None) -> tuple[str, str]:
    """Return the phase, one word for people, and the reason that is shown next to it."""
    serves = decided.serving.condition.status == "True"
    if stop is not None:
        return ("Serving" if serves else "Stalled"), stop.reason.value
    if decided.paused and (work is None or not runs_a_job(decided)):
        return "Paused", Reason.PAUSED.value
    if work is not None:
        return _phase_under_way(decided), work.reason.value
    verdict = decided.verdict
    if verdict is not None and verdict.outcome != "Promoted":
        return ("Serving" if serves else "Ready"), verdict.reason
    if decided.wanted.current is None:
        return "Pending", Reason.PENDING.value
    return ("Serving" if serves else "Ready"), decided.serving.condition.reason


def _phase_under_way(decided: Decisions) -> str:
    if decided.data.work is not None or decided.data.fresh:
        return "Snapshot"
    if not decided.base.ready or decided.awaited:
        return "Waiting"
    if decided.making is not None and decided.making.status.verdict is None:
        return decided.making.stage
    return "RollingOut" if decided.wanted.inputs is None else "Pending"


def _training(decided: Decisions) -> TrainingStatus | None:
    making, before = decided.making, decided.state.expert.status.training
    if making is None or making.stage == "Waiting":
        return before
    if making.status.artefact is not None:
        steps = making.status.artefact.steps
        done = TrainingStatus(summary="100%", step=steps, max_steps=steps, attempt=making.status.attempts)
        if before is None or before.attempt != done.attempt:
            return done
        return before.model_copy(update={"summary": "100%", "eta": "", "step": steps, "max_steps": steps})
    job = making.work.job if making.work is not None else None
    if job is not None and job.suspended and before is not None and before.attempt == making.status.attempts:
        # It ran before and was evicted: nothing moves until it runs again.
        return before.model_copy(update={"summary": QUEUED, "eta": ""})
    progress = job.progress if job is not None else None
    return training_status(progress, attempt=making.status.attempts, before=before)


def _selector(decided: Decisions) -> str:
    target = decided.serving.target
    if target is None:
        return ""
    labels = server_selector(expert=decided.state.expert.metadata.name, revision=target.metadata.name)
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def training_status(
    progress: Progress | None, *, attempt: int, before: TrainingStatus | None
) -> TrainingStatus | None:
    """Return the progress of a training attempt, for the status; None before the first.

    ``before`` is what the status has now. It is kept unchanged until the percentage or the ETA moves: step and loss
    change at every look and would cause a write each time.
    """
    if progress is None:
        # 100 % is left from the revision before.
        same = before is not None and before.attempt == attempt and before.summary not in ("100%", QUEUED)
        return before if same else TrainingStatus(attempt=attempt)
    summary, eta = percent(progress.step, progress.max_steps), eta_text(progress.eta_seconds)
    if before is not None and (before.attempt, before.summary, before.eta) == (attempt, summary, eta):
        return before
    return TrainingStatus(
        summary=summary,
        eta=eta,
        step=progress.step,
        max_steps=progress.max_steps,
        loss=progress.loss,
        bits_per_byte=progress.bits_per_byte,
        tokens_per_second=progress.tokens_per_second,
        attempt=attempt,
    )


def percent(step: int, steps: int) -> str:
    """Return whole percents, rounded down; an empty string while the number of steps is not known."""
    return f"{min(100 * step // steps, 100)}%" if steps > 0 else ""


def eta_text(seconds: float | None) -> str:
    """Return a duration in its largest unit, rounded so that it seldom changes; an empty string if it is not known."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{max(10 * round(seconds / 10), 5)}s"
    if seconds < 3600:
        return f"{round(seconds / 60)}m"
    if seconds < 36_000:
        return f"{seconds / 3600:.1f}h"
    return f"{round(seconds / 3600)}h"
