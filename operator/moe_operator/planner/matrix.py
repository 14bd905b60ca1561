"""Plans the filling of the pool's full matrix: every current revision on the anchor of every domain.

It is due as often as the pool's schedule says, and only if a revision or an anchor is new since it was filled last. Its Job
reuses the cells that evaluations have filled.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from moe_formats.format import canonical_json, digest_of
from moe_formats.job_report import MatrixHeadline
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import MatrixStatus
from moe_formats.resources.expert_revision import ExpertRevision, HoldoutInput
from moe_operator.builders.matrix_job import build_matrix_job
from moe_operator.config import OperatorConfig, Profile
from moe_operator.planner.attempts import assess
from moe_operator.planner.blockage import next_look
from moe_operator.planner.claims import refused_store
from moe_operator.planner.data import plain_profile
from moe_operator.planner.distillation import first_revisions_coming
from moe_operator.planner.job_configs import matrix_job
from moe_operator.planner.lineage import is_promoted
from moe_operator.planner.membership import members
from moe_operator.planner.names import is_attempt, matrix_job_name
from moe_operator.planner.retention import job_ref
from moe_operator.planner.times import LOOK_AGAIN, SCHEDULES, until_next
from moe_operator.state import Manifest, ObjectRef, ObservedJob, PoolState, Role


@dataclass(frozen=True)
class Filling:
    """What is known of the full matrix, and what is done to fill it."""

    #: For the status; None before it was filled.
    status: MatrixStatus | None
    create: tuple[Manifest, ...] = ()
    delete: tuple[ObjectRef, ...] = ()
    #: Seconds until time alone changes the decision.
    wait: float | None = None


@dataclass(frozen=True)
class Extent:
    """The rows and columns of a full matrix."""

    rows: tuple[tuple[Expert, ExpertRevision], ...]
    columns: tuple[HoldoutInput, ...]

    def digest(self) -> str:
        """Return what the matrix depends on; the Job's name is derived from it."""
        artefacts = [
            revision.status.artefact.digest if revision.status.artefact is not None else ""
            for _, revision in self.rows
        ]
        return digest_of(canonical_json([artefacts, [item.window.digest for item in self.columns]]))


def plan_matrix(state: PoolState, config: OperatorConfig, now: datetime) -> Filling:
    """Return what is known of the full matrix, and the Job that fills it if that is due."""
    held, period = state.pool.status.matrix, SCHEDULES.get(state.pool.spec.evaluation.schedule)
    extent = extent_of(state)
    if period is None or not extent.rows or not extent.columns:
        return Filling(held, delete=_delete(state, keep=()))
    digest = extent.digest()
    jobs = _jobs(state, digest)
    if held is not None and held.extent == digest:
        return Filling(held, delete=_delete(state, keep=jobs[-1:]))
    work = assess(jobs, expect=MatrixHeadline, now=now)
    if work.state == "Done" and isinstance(work.headline, MatrixHeadline):
        return Filling(_filled(work.headline, extent, now), delete=_delete(state, keep=jobs))
    if work.state == "Failed" and work.incident is not None:
        return Filling(_given_up(held, extent, work.incident.message, now), delete=_delete(state, keep=jobs))
    delete = _delete(state, keep=jobs)
    if work.state != "Wanted":
        wait = work.wait
        if wait is None and work.job is not None:
            wait = next_look(work.job, work.job.pods, now)
        return Filling(held, delete=delete, wait=wait)
    left = until_next(held.time, period, now) if held is not None else 0.0
    if left > 0:
        return Filling(held, delete=delete, wait=left)
    if any(job.role is Role.MATRIX and job not in jobs for job in state.jobs):
        return Filling(held, delete=delete, wait=LOOK_AGAIN)  # until the Job of an older extent is deleted
    if (
        first_revisions_coming(state)
        or state.pool.spec.paused
        or refused_store(state.pool, state.claims) is not None
    ):
        return Filling(held, delete=delete)
    manifest = build_matrix_job(
        name=matrix_job_name(state.pool.metadata.name, digest, work.number),
        pool=state.pool,
        job=matrix_job(state.pool, list(extent.rows), list(extent.columns)),
        claim=state.pool.claim,
        profile=_profile(extent, config),
        config=config,
    )
    return Filling(held, (manifest,), delete)


def extent_of(state: PoolState) -> Extent:
    """Return the current revision of every Expert, and the anchor of every Expert with a domain, both by name."""
    rows, columns, taking_part = [], [], members(state.experts)
    for name in sorted(taking_part):
        expert = state.experts[name]
        revision = state.revisions.get(expert.status.current_revision or "")
        if revision is not None and revision.spec.expert_uid == expert.metadata.uid and is_promoted(revision):
            rows.append((expert, revision))
        if expert.spec.domain is not None and expert.status.snapshot is not None:
            window = expert.status.snapshot.anchor
            columns.append(HoldoutInput(domain=expert.spec.domain, expert=name, window=window))
    return Extent(tuple(rows), tuple(columns))


def _profile(extent: Extent, config: OperatorConfig) -> Profile:
    """Return the hardware profile on which most of the Experts are measured: cells of other devices would not be reused."""
    names = Counter(expert.spec.training.resources.profile for expert, _ in extent.rows)
    usual = max(sorted(names), key=lambda name: names[name])
    return config.profiles.get(usual) or plain_profile(config)


def _filled(headline: MatrixHeadline, extent: Extent, now: datetime) -> MatrixStatus:
    return MatrixStatus(
        path=headline.path,
        digest=headline.digest,
        extent=extent.digest(),
        revisions=len(extent.rows),
        anchors=len(extent.columns),
        cells=headline.cells - headline.absent,
        time=now.replace(microsecond=0).isoformat(),
    )


def _given_up(held: MatrixStatus | None, extent: Extent, message: str, now: datetime) -> MatrixStatus:
    """Return that filling was given up, beside what was filled before. It is tried again when something is new."""
    tried = {
        "extent": extent.digest(),
        "message": f"the newest could not be filled: {message}"[:1024],
        "time": now.replace(microsecond=0).isoformat(),
    }
    return held.model_copy(update=tried) if held is not None else MatrixStatus(**tried)


def _jobs(state: PoolState, extent: str) -> tuple[ObservedJob, ...]:
    first = matrix_job_name(state.pool.metadata.name, extent, 1)
    return tuple(job for job in state.jobs if job.role is Role.MATRIX and is_attempt(job.name, first))


def _delete(state: PoolState, *, keep: tuple[ObservedJob, ...]) -> tuple[ObjectRef, ...]:
    namespace = state.pool.metadata.namespace
    return tuple(
        job_ref(job, namespace)
        for job in state.jobs
        if job.role is Role.MATRIX and job not in keep and not job.deleting
    )
