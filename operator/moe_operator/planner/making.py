"""Makes a revision: trains, evaluates, starts and judges it. Every step rests only on what is in the API server.

Waiting      Training has not started, since the gate could decide nothing (holdout too small, window used up).
Training     Training Jobs are attempted until one reports an artefact.
Evaluating   Evaluation Jobs are attempted until one reports evidence. If graders judge answers, grade Jobs follow.
Starting     The numbers pass the gate, and a server has to show that it can load the weights.
Decided      The gate has ruled. Unless the revision was promoted, the gate is asked again at every pass: its ruling
             changes if the spec's own part of it changes, for example the targets.
"""

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version

from moe_formats.job_config import ArtefactRef
from moe_formats.job_report import EvaluateHeadline, TrainHeadline, Ungraded
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_revision import Cause, ExpertRevision, ExpertRevisionStatus, Verdict
from moe_operator.builders.evaluate_job import build_evaluate_job
from moe_operator.builders.training_job import build_training_job
from moe_operator.config import OperatorConfig, Profile
from moe_operator.planner.attempts import Work, assess, known_reason
from moe_operator.planner.blockage import next_look, server_failure
from moe_operator.planner.children import missing_gang
from moe_operator.planner.decisions import Decisions, Making, Stage
from moe_operator.planner.evaluators import evaluator_names
from moe_operator.planner.evidence import artefact_of, evidence_of
from moe_operator.planner.grading import new_grade_job
from moe_operator.planner.job_configs import evaluate_job, train_job
from moe_operator.planner.names import evaluate_job_name, revision_of, training_job_name
from moe_operator.planner.promotion import Candidate, Ruling, judge, too_small, used_up, uses_of
from moe_operator.planner.serving import server_of
from moe_operator.planner.targets import judge_targets
from moe_operator.state import ExpertState, Manifest, ObservedJob, Role


def make(decided: Decisions) -> Making | None:
    """Return which stage the wanted revision has reached; None if no revision has to be made, or while there is no pool."""
    revision, pool = decided.wanted.revision, decided.state.pool
    return _next_step(revision, decided) if revision is not None and pool is not None else None


def _next_step(revision: ExpertRevision, decided: Decisions) -> Making:
    status = revision.status
    ruling = _ruled_before_training(revision, decided)
    if ruling is not None:
        return Making(revision, "Waiting", _with_verdict(status, ruling, decided))
    if status.verdict is not None and status.verdict.outcome in ("Failed", "Withdrawn"):
        return Making(revision, "Decided", status)
    if status.artefact is None:
        made = _train(revision, decided)
        if made.status.artefact is None:
            return made
        revision = revision.model_copy(update={"status": made.status})
    if revision.status.evidence is None:
        made = _evaluate(revision, decided)
        if made.status.evidence is None:
            return made
        revision = revision.model_copy(update={"status": made.status})
    return _decide(revision, decided)


def jobs_of(state: ExpertState, role: Role, revision: str) -> list[ObservedJob]:
    """Return the Jobs of a role that work for a revision."""
    return [job for job in state.jobs if job.role is role and revision_of(job.name) == revision]


def _ruled_before_training(revision: ExpertRevision, decided: Decisions) -> Ruling | None:
    if revision.status.evidence is not None:
        return None
    spec = revision.spec
    return too_small(spec.anchor, spec.newest) or used_up(uses_of(revision, decided.state.revisions))


def _train(revision: ExpertRevision, decided: Decisions) -> Making:
    state, name = decided.state, revision.metadata.name
    expert = state.expert
    work = assess(
        jobs_of(state, Role.TRAIN, name),
        expect=TrainHeadline,
        now=decided.now,
        made=revision.status.attempts,
        limit=expert.spec.training.max_attempts,
        orphans=state.orphan_pods,
    )
    status = revision.status
    if work.state == "Done" and isinstance(work.headline, TrainHeadline):
        artefact = artefact_of(work.headline)
        status = status.model_copy(
            update={
                "artefact": artefact,
                "attempts": max(status.attempts, work.number),
                "device_seconds": _device_seconds(expert, work.job, decided.now),
            }
        )
        return Making(revision, "Training", status, work)
    profile = decided.config.profiles.get(state.expert.spec.training.resources.profile)
    create: tuple[Manifest, ...] = ()
    # The pods of a gang find one another by its Service, so it has to be there, and ours, before they are.
    may_start = decided.may_start and not missing_gang(state)
    if work.state == "Wanted" and may_start and profile is not None:
        job = train_job(state.expert, decided.pool, revision, work.number, base=_base_of(revision, decided))
        create = (
            build_training_job(
                name=training_job_name(name, work.number),
                expert=state.expert,
                job=job,
                claim=decided.pool.claim,
                profile=profile,
                config=decided.config,
            ),
        )
        status = status.model_copy(update={"provenance": _provenance(expert, profile, decided.config)})
    if create or work.state == "Running":
        status = status.model_copy(update={"attempts": max(status.attempts, work.number)})
    return _attempted(revision, "Training", status, work, create, decided)


def _evaluate(revision: ExpertRevision, decided: Decisions) -> Making:
    state, name = decided.state, revision.metadata.name
    work = assess(jobs_of(state, Role.EVALUATE, name), expect=EvaluateHeadline, now=decided.now)
    status = revision.status
    if work.state == "Done" and isinstance(work.headline, EvaluateHeadline):
        if work.headline.ungraded is not None:
            return _grade(revision, work.headline, work.headline.ungraded, decided)
        return _measured(revision, work, work.headline, decided)
    profile = decided.config.profiles.get(state.expert.spec.training.resources.profile)
    create: tuple[Manifest, ...] = ()
    if work.state == "Wanted" and decided.may_start and profile is not None:
        job = evaluate_job(
            state.expert,
            decided.pool,
            revision,
            current=decided.wanted.current,
            base=_base_of(revision, decided),
            uses=uses_of(revision, state.revisions),
        )
        create = (
            build_evaluate_job(
                name=evaluate_job_name(name, work.number),
                expert=state.expert,
                job=job,
                claim=decided.pool.claim,
                profile=profile,
                config=decided.config,
            ),
        )
    return _attempted(revision, "Evaluating", status, work, create, decided)


def _base_of(revision: ExpertRevision, decided: Decisions) -> ArtefactRef | None:
    """Return what gain and losses are measured against: the pinned base, or the newer one that a revision is made from."""
    return revision.spec.inputs.parent if revision.spec.cause is Cause.REBASE else decided.base.parent


def _grade(
    revision: ExpertRevision, evaluation: EvaluateHeadline, ungraded: Ungraded, decided: Decisions
) -> Making:
    """Return which stage grading has reached. The evaluation becomes evidence once graders have judged what it left ungraded."""
    state = decided.state
    jobs = jobs_of(state, Role.GRADE, revision.metadata.name)
    work = assess(jobs, expect=EvaluateHeadline, now=decided.now)
    if work.state == "Done" and isinstance(work.headline, EvaluateHeadline):
        return _measured(revision, work, work.headline, decided)
    create: tuple[Manifest, ...] = ()
    if work.state == "Wanted" and decided.may_start:
        create = (
            new_grade_job(
                state,
                decided.pool,
                revision,
                evaluation,
                ungraded,
                attempt=work.number,
                config=decided.config,
            ),
        )
    return _attempted(revision, "Evaluating", revision.status, work, create, decided)


def _measured(revision: ExpertRevision, work: Work, headline: EvaluateHeadline, decided: Decisions) -> Making:
    evidence = evidence_of(headline, decided.wanted.current)
    status = revision.status.model_copy(update={"evidence": evidence})
    return Making(revision, "Evaluating", status, work)


def _attempted(
    revision: ExpertRevision,
    stage: Stage,
    status: ExpertRevisionStatus,
    work: Work,
    create: Sequence[Manifest],
    decided: Decisions,
) -> Making:
    if work.state == "Failed" and work.incident is not None:
        incident = work.incident
        what = "training" if stage == "Training" else "evaluation"
        message = (
            f"{what} failed for good: {incident.message}. These inputs are not tried again: change the spec "
            "or the data, or set a new spec.runID"
        )
        ruling = Ruling("Failed", what, incident.reason, message)
        return Making(revision, "Decided", _with_verdict(status, ruling, decided), work)
    wait = work.wait
    if wait is None and work.job is not None:
        wait = next_look(work.job, work.job.pods, decided.now)
    return Making(revision, stage, status, work, tuple(create), wait)


def _decide(revision: ExpertRevision, decided: Decisions) -> Making:
    """Return the ruling of the gate. It is asked at every pass until the revision is promoted, since the spec may change."""
    status, expert = revision.status, decided.state.expert
    settled = status.verdict is not None and status.verdict.outcome == "Promoted"
    if settled or status.evidence is None:
        return Making(revision, "Decided", status)
    ruling = judge(
        Candidate(
            name=revision.metadata.name,
            cause=revision.spec.cause,
            first=status.evidence.current is None,
            evidence=status.evidence,
            promotion=expert.spec.promotion,
            evaluators=evaluator_names(expert),
            targets=judge_targets(expert.spec.targets, status.evidence.scores),
        )
    )
    if ruling.outcome == "Promoted" and _must_start(decided.state):
        server = server_of(decided.state, revision.metadata.name)
        if server is not None and (failure := server_failure(server.pods)) is not None:
            message = (
                f"no server can load {revision.metadata.name}: {failure.message}. These inputs are not tried again: "
                "change the spec or the data, or set a new spec.runID"
            )
            ruling = Ruling("Failed", "loads", known_reason(failure.reason), message)
        elif server is None or server.ready_replicas == 0:
            return Making(revision, "Starting", status.model_copy(update={"verdict": None}))
    return Making(revision, "Decided", _with_verdict(status, ruling, decided))


def _must_start(state: ExpertState) -> bool:
    """Return whether a server has to load a revision before it is promoted.

    Not if it would not serve: the Expert has no replicas, or spec.revision pins another revision.
    """
    return state.expert.spec.serving.replicas > 0 and state.expert.spec.revision is None


def _with_verdict(status: ExpertRevisionStatus, ruling: Ruling, decided: Decisions) -> ExpertRevisionStatus:
    verdict = Verdict(
        outcome=ruling.outcome,
        clause=ruling.clause,
        reason=ruling.reason,
        message=ruling.message[:2048],
        final=ruling.final,
        time=decided.now.replace(microsecond=0).isoformat(),
    )
    return status.model_copy(update={"verdict": _same_time(verdict, status.verdict)})


def _same_time(verdict: Verdict, before: Verdict | None) -> Verdict:
    """Return the verdict, with the time of ``before`` if both say the same: asking again is not a new decision."""
    if before is not None and verdict.model_copy(update={"time": before.time}) == before:
        return before
    return verdict


def _device_seconds(expert: Expert, job: ObservedJob | None, now: datetime) -> float | None:
    """Return the seconds that a training Job ran, times the devices or processes that the spec gives it."""
    if job is None or job.started is None:
        return None
    resources = expert.spec.training.resources
    seconds = max(((job.finished or now) - job.started).total_seconds(), 1.0)
    return seconds * resources.nodes * resources.devices_per_node


def _provenance(expert: Expert, profile: Profile, config: OperatorConfig) -> dict[str, str]:
    """Return what the newest attempt runs on. It is recorded, but it is not part of the revision's identity."""
    resources = expert.spec.training.resources
    return {
        "image": profile.image or config.images.trainer,
        "profile": resources.profile,
        "devices": str(resources.nodes * resources.devices_per_node if profile.device else 0),
        "operator": version("moe-operator"),
    }
