"""Plans the measuring of drift: of the current revision, on its Expert's newest text, between the making of revisions.

A measurement is asked for by what it depends on: the weights, the base's, the anchor, the newest window and the items of
evaluators. It is due when the pool's schedule says so and something of that is new. While a revision is being made nothing
is measured, since that may become the current one. A result is recorded only if it is what is asked for now: that of a
revision which has been replaced meanwhile is dropped with its Job.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from moe_formats.format import canonical_json, digest_of
from moe_formats.job_config import ArtefactRef
from moe_formats.job_report import Accuracy, DriftHeadline
from moe_formats.resources.drift import DriftStatus
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.expert_status import SnapshotStatus
from moe_formats.resources.reasons import Reason
from moe_operator.builders.drift_job import build_drift_job
from moe_operator.planner.analysis import share_of_requests
from moe_operator.planner.attempts import Work, assess
from moe_operator.planner.blockage import next_look
from moe_operator.planner.conditions import Says, Why
from moe_operator.planner.decisions import Decisions, Measuring
from moe_operator.planner.drift import Findings, cause_of, drift_says, has_drifted, is_up
from moe_operator.planner.job_configs import drift_job, tasks_of
from moe_operator.planner.lineage import by_name, root_of
from moe_operator.planner.names import drift_job_name, expert_of, is_attempt
from moe_operator.planner.times import LOOK_AGAIN, SCHEDULES, until_next
from moe_operator.state import ExpertState, Manifest, ObservedJob, Role


@dataclass(frozen=True)
class Question:
    """What is to be measured."""

    revision: ExpertRevision
    base: ArtefactRef
    snapshot: SnapshotStatus
    #: Digest of all that the result depends on; the Job's name is derived from it.
    digest: str


def plan_measuring(decided: Decisions) -> Measuring:
    """Return what is known of the current revision's drift, and the Job that measures it if that is due."""
    state, current = decided.state, decided.wanted.current
    if current is None or state.pool is None:
        return Measuring(None, None)
    held = state.expert.status.drift
    known = held if held is not None and held.revision == current.metadata.name else None
    if state.pool.spec.evaluation.schedule == "never":
        return Measuring(held, drift_says(known) if known is not None else None)
    asked = _asked(state, current)
    if isinstance(asked, Why):
        return Measuring(known, Says(None, *asked))
    if known is not None and known.request == asked.digest:
        return Measuring(known, drift_says(known), keep=_jobs(state, asked))
    return _measure(decided, asked, known)


def _measure(decided: Decisions, asked: Question, known: DriftStatus | None) -> Measuring:
    """Return the stage that a measurement has reached. Until it is done, what is known of the same revision stands."""
    state, jobs = decided.state, _jobs(decided.state, asked)
    work = assess(jobs, expect=DriftHeadline, now=decided.now)
    if work.state == "Done" and isinstance(work.headline, DriftHeadline):
        found = _recorded(decided, asked, work.headline, known)
        return Measuring(found, drift_says(found), keep=jobs, fresh=True)
    if work.state == "Failed" and work.incident is not None:
        found = _failed(decided, asked, work.incident.message, work.incident.reason)
        return Measuring(found, drift_says(found), keep=jobs, fresh=True)
    why, wait = _why_not_yet(decided, known)
    says = drift_says(known) if known is not None else Says(None, Reason.NOT_MEASURED, why or _words(work))
    if work.state != "Wanted":
        return Measuring(known, says, keep=jobs, wait=_wait(work, decided.now))
    if why is not None:
        return Measuring(known, says, keep=jobs, wait=wait)
    if any(job.role is Role.DRIFT and job not in jobs for job in state.jobs):
        return Measuring(
            known, says, keep=jobs, wait=LOOK_AGAIN
        )  # until the Job of an older question is deleted
    return Measuring(known, says, keep=jobs, create=_job(decided, asked, work.number))


def _asked(state: ExpertState, current: ExpertRevision) -> Question | Why:
    """Return what has to be measured of a revision, or why nothing can be."""
    snapshot, artefact = state.expert.status.snapshot, current.status.artefact
    root = root_of(current, by_name(state.revisions))
    base = root.spec.inputs.parent
    if base is None:
        return Why(
            Reason.NO_BASE,
            f"{root.metadata.name} was trained from a preset: there is nothing to compare with",
        )
    if expert_of(base.revision) == state.expert.metadata.name:
        gone = (
            f"the first revision in the line of {current.metadata.name} was deleted, so its base is not known"
        )
        return Why(Reason.NO_BASE, gone)
    if snapshot is None or snapshot.newest is None or artefact is None:
        few = "nothing was held out since the anchor; 2 windows are needed, one per delivery of new data"
        return Why(Reason.TOO_FEW_WINDOWS, few)
    depends_on = [
        state.expert.metadata.uid,
        artefact.digest,
        base.digest,
        snapshot.anchor.digest,
        snapshot.newest.digest,
        [tasks.digest for tasks in tasks_of(state.expert)],
    ]
    return Question(current, base, snapshot, digest_of(canonical_json(depends_on)))


def _why_not_yet(decided: Decisions, known: DriftStatus | None) -> tuple[str | None, float | None]:
    """Return why a measurement may not begin now, and the seconds until time alone changes that."""
    if decided.wanted.undecided or decided.data.fresh:
        return "a revision is being made, which may become the current one", None
    if not decided.may_start:
        return "no new work starts now", None
    period = SCHEDULES.get(decided.pool.spec.evaluation.schedule)
    if known is not None and period is not None:
        left = until_next(known.time, period, decided.now)
        if left > 0:
            return "spec.evaluation.schedule of the pool says when", left
    return None, None


def _words(work: Work) -> str:
    if work.incident is not None:
        return f"{work.incident.message}; attempt {work.number} follows"
    return "drift is being measured"


def _wait(work: Work, now: datetime) -> float | None:
    if work.wait is not None or work.job is None:
        return work.wait
    return next_look(work.job, work.job.pods, now)


def _job(decided: Decisions, asked: Question, attempt: int) -> tuple[Manifest, ...]:
    state, expert = decided.state, decided.state.expert
    profile = decided.config.profiles.get(expert.spec.training.resources.profile)
    if profile is None:
        return ()
    job = drift_job(expert, decided.pool, asked.revision, base=asked.base, snapshot=asked.snapshot)
    manifest = build_drift_job(
        name=drift_job_name(state.expert.metadata.name, asked.digest, attempt),
        expert=expert,
        job=job,
        claim=decided.pool.claim,
        profile=profile,
        config=decided.config,
    )
    return (manifest,)


def _jobs(state: ExpertState, asked: Question) -> tuple[ObservedJob, ...]:
    first = drift_job_name(state.expert.metadata.name, asked.digest, 1)
    return tuple(job for job in state.jobs if job.role is Role.DRIFT and is_attempt(job.name, first))


def _recorded(
    decided: Decisions, asked: Question, headline: DriftHeadline, before: DriftStatus | None
) -> DriftStatus:
    """Return what a Job measured, with the verdict and the cause."""
    drift, difficulty = headline.drift, headline.difficulty
    value, bound = (drift.interval.value, drift.lower_bound) if drift is not None else (None, None)
    drifted = has_drifted(value, bound, before)
    domain = decided.state.expert.spec.domain
    shares = share_of_requests(decided.state.expert.metadata.uid, decided.state.traffic, decided.now)
    absent = {name: why[:256] for name, why in list(headline.absent.items())[:14]}
    if shares is None:
        absent["share"] = "the pool had too few requests in the last 24 hours or in the seven days before"
    cause = cause_of(
        Findings(
            drifted=drifted,
            harder=is_up(difficulty.lower_bound if difficulty is not None else None),
            domain_changed=headline.nearest_domain != domain if headline.nearest_domain is not None else None,
            task_fell=task_fell(headline.accuracies, _accuracies_before(asked.revision)),
            share_moved=share_moved(*shares) if shares is not None else None,
        )
    )
    return DriftStatus(
        drifted=bool(drifted),
        cause=cause,
        interval=drift.interval if drift is not None else None,
        lower_bound=bound,
        difficulty=difficulty.interval if difficulty is not None else None,
        difficulty_bound=difficulty.lower_bound if difficulty is not None else None,
        gain=headline.gain,
        nearest_domain=headline.nearest_domain,
        accuracies=list(headline.accuracies[:4]),
        share=shares[0] if shares is not None else None,
        share_before=shares[1] if shares is not None else None,
        windows=list(headline.windows),
        clusters=headline.clusters,
        report=headline.report,
        absent=absent,
        **_of(decided, asked),
    )


def _failed(decided: Decisions, asked: Question, message: str, reason: Reason) -> DriftStatus:
    """Return that a measurement was given up. It is tried again when something that it depends on is new."""
    why = f"{reason}: {message}"[:1024]
    return DriftStatus(drifted=False, absent={"interval": why}, **_of(decided, asked))


def _of(decided: Decisions, asked: Question) -> dict[str, str]:
    return {
        "revision": asked.revision.metadata.name,
        "base": asked.base.revision,
        "anchor": asked.snapshot.anchor.digest,
        "request": asked.digest,
        "time": decided.now.replace(microsecond=0).isoformat(),
    }


def _accuracies_before(revision: ExpertRevision) -> Sequence[Accuracy]:
    evidence = revision.status.evidence
    return evidence.scores.accuracies if evidence is not None else ()


def task_fell(now: Sequence[Accuracy], before: Sequence[Accuracy]) -> bool | None:
    """Return whether an evaluator's accuracy fell: its interval now lies below that before. None if none can be compared."""
    earlier = {item.evaluator: item.accuracy for item in before}
    both = [(item.accuracy, earlier[item.evaluator]) for item in now if item.evaluator in earlier]
    return any(later.upper < first.lower for later, first in both) if both else None


def share_moved(now: float, before: float) -> bool:
    """Return whether a share of requests moved by at least 0.05 and by at least a quarter of what it was."""
    return abs(now - before) >= max(0.05, 0.25 * before)
