"""Making a revision: train, evaluate, judge. Each step rests on what the API objects say and nothing else.

Waiting      the gate could decide nothing even if it were trained (holdout too small, window used up)
Training     attempts, until one reports an artefact
Evaluating   attempts, until one reports evidence; where graders have a say, further ones of theirs
Decided      the gate ruled; a ruling is renewed only where the spec's own part of the gate changed
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Literal

from moe_formats.job_config import ArtefactRef
from moe_formats.job_report import EvaluateHeadline, TrainHeadline, Ungraded
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision, ExpertRevisionStatus, Verdict
from moe_operator.builders.evaluate_job import build_evaluate_job
from moe_operator.builders.training_job import build_training_job
from moe_operator.config import OperatorConfig, Profile
from moe_operator.planner.attempts import Work, assess, known_reason
from moe_operator.planner.blockage import server_failure
from moe_operator.planner.evaluators import evaluator_names
from moe_operator.planner.evidence import artefact_of, evidence_of
from moe_operator.planner.grading import new_grade_job
from moe_operator.planner.job_configs import evaluate_job, train_job
from moe_operator.planner.names import evaluate_job_name, training_job_name
from moe_operator.planner.promotion import Candidate, Ruling, judge, too_small, used_up, uses_of
from moe_operator.planner.targets import judge_targets
from moe_operator.state import ExpertState, Manifest, ObservedJob, ObservedServer, Role

Stage = Literal["Waiting", "Training", "Evaluating", "Starting", "Decided"]


@dataclass(frozen=True)
class Context:
    """What a revision is made with."""

    state: ExpertState
    pool: ExpertPool
    config: OperatorConfig
    now: datetime
    #: False while paused or stalled: what runs goes on, nothing new starts.
    may_start: bool
    current: ExpertRevision | None
    base: ArtefactRef | None


@dataclass(frozen=True)
class Making:
    """How far a revision is, and what comes next."""

    revision: ExpertRevision
    stage: Stage
    status: ExpertRevisionStatus
    work: Work | None = None
    create: tuple[Manifest, ...] = ()
    wait: float | None = None


def make(revision: ExpertRevision, context: Context) -> Making:
    """Return the next step of a revision."""
    status = revision.status
    ruling = _ruled_before_training(revision, context)
    if ruling is not None:
        return Making(revision, "Waiting", _with_verdict(status, ruling, context))
    if status.verdict is not None and status.verdict.outcome == "Failed":
        return Making(revision, "Decided", status)
    if status.artefact is None:
        made = _train(revision, context)
        if made.status.artefact is None:
            return made
        revision = revision.model_copy(update={"status": made.status})
    if revision.status.evidence is None:
        made = _evaluate(revision, context)
        if made.status.evidence is None:
            return made
        revision = revision.model_copy(update={"status": made.status})
    return _decide(revision, context)


def jobs_of(state: ExpertState, role: Role, revision: str) -> list[ObservedJob]:
    """Return the Jobs of one role that work for a revision."""
    return [job for job in state.jobs if job.role is role and job.revision == revision]


def server_of(state: ExpertState, revision: str) -> ObservedServer | None:
    """Return the servers of a revision, unless they are going away."""
    return next((item for item in state.servers if item.revision == revision and not item.deleting), None)


def _ruled_before_training(revision: ExpertRevision, context: Context) -> Ruling | None:
    if revision.status.evidence is not None:
        return None
    spec = revision.spec
    return too_small(spec.anchor, spec.newest) or used_up(uses_of(revision, context.state.revisions))


def _train(revision: ExpertRevision, context: Context) -> Making:
    state, name = context.state, revision.metadata.name
    expert = state.expert
    work = assess(
        jobs_of(state, Role.TRAIN, name),
        expect=TrainHeadline,
        now=context.now,
        made=revision.status.attempts,
        limit=expert.spec.training.max_attempts,
        orphans=state.orphan_pods,
    )
    status = revision.status
    if work.state == "Done" and isinstance(work.headline, TrainHeadline):
        artefact = artefact_of(work.headline)
        status = status.model_copy(
            update={"artefact": artefact, "attempts": max(status.attempts, work.number)}
        )
        return Making(revision, "Training", status, work)
    profile = context.config.profiles.get(state.expert.spec.training.resources.profile)
    create: tuple[Manifest, ...] = ()
    if work.state == "Wanted" and context.may_start and profile is not None:
        job = train_job(state.expert, context.pool, revision, work.number, base=context.base)
        create = (
            build_training_job(
                name=training_job_name(name, work.number),
                expert=state.expert,
                job=job,
                claim=state.claim,
                profile=profile,
                config=context.config,
            ),
        )
        status = status.model_copy(update={"provenance": _provenance(expert, profile, context.config)})
    if create or work.state == "Running":
        status = status.model_copy(update={"attempts": max(status.attempts, work.number)})
    return _attempted(revision, "Training", status, work, create, context)


def _evaluate(revision: ExpertRevision, context: Context) -> Making:
    state, name = context.state, revision.metadata.name
    work = assess(jobs_of(state, Role.EVALUATE, name), expect=EvaluateHeadline, now=context.now)
    status = revision.status
    if work.state == "Done" and isinstance(work.headline, EvaluateHeadline):
        if work.headline.ungraded is not None:
            return _grade(revision, work.headline, work.headline.ungraded, context)
        return _measured(revision, work, work.headline, context)
    profile = context.config.profiles.get(state.expert.spec.training.resources.profile)
    create: tuple[Manifest, ...] = ()
    if work.state == "Wanted" and context.may_start and profile is not None:
        job = evaluate_job(
            state.expert,
            context.pool,
            revision,
            current=context.current,
            base=context.base,
            uses=uses_of(revision, state.revisions),
        )
        create = (
            build_evaluate_job(
                name=evaluate_job_name(name, work.number),
                expert=state.expert,
                job=job,
                claim=state.claim,
                profile=profile,
                config=context.config,
            ),
        )
    return _attempted(revision, "Evaluating", status, work, create, context)


def _grade(
    revision: ExpertRevision, evaluation: EvaluateHeadline, ungraded: Ungraded, context: Context
) -> Making:
    """Have graders judge what the evaluation left open; its evidence counts when they have."""
    state = context.state
    jobs = jobs_of(state, Role.GRADE, revision.metadata.name)
    work = assess(jobs, expect=EvaluateHeadline, now=context.now)
    if work.state == "Done" and isinstance(work.headline, EvaluateHeadline):
        return _measured(revision, work, work.headline, context)
    create: tuple[Manifest, ...] = ()
    if work.state == "Wanted" and context.may_start:
        create = (
            new_grade_job(
                state,
                context.pool,
                revision,
                evaluation,
                ungraded,
                attempt=work.number,
                config=context.config,
            ),
        )
    return _attempted(revision, "Evaluating", revision.status, work, create, context)


def _measured(revision: ExpertRevision, work: Work, headline: EvaluateHeadline, context: Context) -> Making:
    evidence = evidence_of(headline, context.current)
    status = revision.status.model_copy(update={"evidence": evidence})
    return Making(revision, "Evaluating", status, work)


def _attempted(
    revision: ExpertRevision,
    stage: Stage,
    status: ExpertRevisionStatus,
    work: Work,
    create: Sequence[Manifest],
    context: Context,
) -> Making:
    if work.state == "Failed" and work.incident is not None:
        incident = work.incident
        what = "training" if stage == "Training" else "evaluation"
        message = (
            f"{what} failed for good: {incident.message}. These inputs are not tried again: change the spec "
            "or the data, or set a new spec.runID"
        )
        ruling = Ruling("Failed", what, incident.reason, message)
        return Making(revision, "Decided", _with_verdict(status, ruling, context), work)
    return Making(revision, stage, status, work, tuple(create), work.wait)


def _decide(revision: ExpertRevision, context: Context) -> Making:
    """Ask the gate, and ask it again where the spec's own part of it may have changed."""
    status, expert = revision.status, context.state.expert
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
    if ruling.outcome == "Promoted" and _must_start(context.state):
        server = server_of(context.state, revision.metadata.name)
        if server is not None and (failure := server_failure(server.pods)) is not None:
            message = f"no server can load {revision.metadata.name}: {failure.message}"
            ruling = Ruling("Failed", "loads", known_reason(failure.reason), message)
        elif server is None or server.ready_replicas == 0:
            return Making(revision, "Starting", status.model_copy(update={"verdict": None}))
    return Making(revision, "Decided", _with_verdict(status, ruling, context))


def _must_start(state: ExpertState) -> bool:
    """Say whether a promoted revision would serve: one behind a pin, or of an Expert at zero, would not."""
    return state.expert.spec.serving.replicas > 0 and state.expert.spec.revision is None


def _with_verdict(status: ExpertRevisionStatus, ruling: Ruling, context: Context) -> ExpertRevisionStatus:
    verdict = Verdict(
        outcome=ruling.outcome,
        clause=ruling.clause,
        reason=ruling.reason,
        message=ruling.message[:2048],
        final=ruling.final,
        time=context.now.replace(microsecond=0).isoformat(),
    )
    return status.model_copy(update={"verdict": _same_time(verdict, status.verdict)})


def _same_time(verdict: Verdict, before: Verdict | None) -> Verdict:
    """Return the verdict with the time of ``before`` if it says the same: looking again is no decision."""
    if before is not None and verdict.model_copy(update={"time": before.time}) == before:
        return before
    return verdict


def _provenance(expert: Expert, profile: Profile, config: OperatorConfig) -> dict[str, str]:
    """Return what the newest attempt runs on: recorded, and no part of the revision's identity."""
    resources = expert.spec.training.resources
    return {
        "image": profile.image or config.images.trainer,
        "profile": resources.profile,
        "devices": str(resources.nodes * resources.devices_per_node if profile.device else 0),
        "operator": version("moe-operator"),
    }
