"""Builds the status of an Expert, its columns and conditions, from what the stages decided."""

from moe_formats.resources.conditions import merge_conditions
from moe_formats.resources.expert_status import ExpertStatus, TrainingStatus
from moe_formats.resources.reasons import Reason
from moe_operator.builders.server import server_selector
from moe_operator.planner.conditions import Why
from moe_operator.planner.decisions import Decisions
from moe_operator.planner.expert_conditions import expert_conditions, stalled, under_way
from moe_operator.planner.progress import training_status
from moe_operator.planner.targets import judge_targets, score_summary, targets_summary


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
        training=_training(decided),
        scores=scores,
        score=score_summary(scores, domain=expert.spec.domain),
        targets=targets_summary(results),
        target_results=results,
        serving=serving,
        replicas=serving.replicas if serving is not None else 0,
        selector=_selector(decided),
    )


def _phase(decided: Decisions, stop: Why | None, work: Why | None) -> tuple[str, str]:
    """Return the phase, one word for people, and the reason that is shown next to it."""
    serves = decided.serving.condition.status == "True"
    if stop is not None:
        return ("Serving" if serves else "Stalled"), stop.reason.value
    if decided.paused and (work is None or not _runs(decided)):
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


def _runs(decided: Decisions) -> bool:
    works = (decided.data.work, decided.making.work if decided.making is not None else None)
    jobs = [work.job for work in works if work is not None and work.state == "Running"]
    return any(job is not None and not job.suspended for job in jobs)


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
    progress = making.work.job.progress if making.work is not None and making.work.job is not None else None
    return training_status(progress, attempt=making.status.attempts, before=before)


def _selector(decided: Decisions) -> str:
    target = decided.serving.target
    if target is None:
        return ""
    labels = server_selector(expert=decided.state.expert.metadata.name, revision=target.metadata.name)
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
