"""Decides which table the Distilled strategy needs, and plans the Job that makes it.

A table is made from a roster: the revisions that should serve, and the suite of holdouts that all of them were measured
on. Experts at zero replicas are part of it, so scaling asks for no other table. Another table is made whenever the roster
changes, but not while an Expert is on the way to its first revision: a pool that has just been applied makes one table,
and not another one after each Expert.
"""

from dataclasses import dataclass
from datetime import datetime

from moe_formats.format import canonical_json, digest_of
from moe_formats.job_report import DistillHeadline
from moe_formats.resources.conditions import ConditionType, find_condition
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import TableStatus
from moe_formats.resources.expert_revision import ExpertRevision, HoldoutInput
from moe_formats.resources.reasons import Reason
from moe_operator.builders.distill_job import build_distill_job
from moe_operator.config import OperatorConfig
from moe_operator.planner.attempts import Work, assess
from moe_operator.planner.blockage import next_look, stuck_job
from moe_operator.planner.claims import refused_store
from moe_operator.planner.conditions import Says, Why
from moe_operator.planner.data import plain_profile
from moe_operator.planner.job_configs import distill_job
from moe_operator.planner.membership import age, chosen
from moe_operator.planner.names import distill_job_name, is_attempt
from moe_operator.planner.retention import job_ref
from moe_operator.planner.routing import WITH_TABLE
from moe_operator.planner.serving import target_of
from moe_operator.state import Manifest, ObjectRef, ObservedJob, PoolState, Role


@dataclass(frozen=True)
class Roster:
    """What a table is made from: Experts with the revisions that should serve them, and the holdouts that all share."""

    members: tuple[tuple[Expert, ExpertRevision], ...]
    suite: tuple[HoldoutInput, ...]

    def digest(self) -> str:
        """Return the digest by which a table of this roster is recognised."""
        members = [[expert.metadata.name, artefact_digest(revision)] for expert, revision in self.members]
        return digest_of(canonical_json([members, [item.window.digest for item in self.suite]]))


@dataclass(frozen=True)
class Distillation:
    """The table to use, the Jobs to create and to delete, and what is said about it."""

    table: TableStatus | None
    create: tuple[Manifest, ...] = ()
    delete: tuple[ObjectRef, ...] = ()
    #: Seconds until time alone changes the decision.
    wait: float | None = None
    #: What the pool's condition TableReady says; None where the strategy needs no table.
    says: Says | None = None

    @property
    def under_way(self) -> bool:
        """Whether a table is being made, or is about to be."""
        return self.says is not None and self.says.reason in (Reason.PROGRESSING, Reason.RETRYING)

    @property
    def failure(self) -> Why | None:
        """Why no table can be made until something changes, or None."""
        failed = self.says is not None and self.says.status is False and not self.under_way
        return Why(self.says.reason, self.says.message) if self.says is not None and failed else None


def plan_distillation(state: PoolState, config: OperatorConfig, now: datetime) -> Distillation:
    """Return the table to use now, and the Job that makes the next one if another is needed."""
    table = state.pool.status.routing.table
    roster = roster_of(state)
    if state.pool.spec.routing.strategy not in WITH_TABLE:
        return Distillation(table, delete=_delete(state, keep=()))
    if roster is None:
        nothing = (
            "a table needs at least two Experts that should serve and were measured on the same holdouts"
        )
        return Distillation(table, delete=_delete(state, keep=()), says=Says(None, Reason.PENDING, nothing))
    digest = roster.digest()
    if table is not None and table.roster == digest:
        return Distillation(table, delete=_delete(state, keep=_jobs(state, digest)[-1:]), says=_made(table))
    jobs = _jobs(state, digest)
    work = assess(jobs, expect=DistillHeadline, now=now)
    if work.state == "Done" and isinstance(work.headline, DistillHeadline):
        made = _table(work.headline, roster)
        return Distillation(made, says=_made(made))
    create: tuple[Manifest, ...] = ()
    refusal = refused_store(state.pool, state.claims)
    if work.state == "Wanted" and refusal is not None:
        return Distillation(table, delete=_delete(state, keep=jobs), says=Says(None, *refusal))
    if work.state == "Wanted" and not state.pool.spec.paused and not first_revisions_coming(state):
        manifest = build_distill_job(
            name=distill_job_name(state.pool.metadata.name, digest, work.number),
            pool=state.pool,
            job=distill_job(state.pool, list(roster.members), list(roster.suite)),
            claim=state.pool.claim,
            profile=plain_profile(config),
            config=config,
        )
        create = (manifest,)
    wait = work.wait
    if wait is None and work.job is not None:
        wait = next_look(work.job, work.job.pods, now)
    return Distillation(table, create, _delete(state, keep=jobs), wait, _on_its_way(state, work, now))


def table_summary(table: TableStatus) -> str:
    """Return, as a sentence, which Experts a table tells apart and how well."""
    return (
        f"{', '.join(table.experts)}: {table.accuracy:.1%} of segments go to the Expert that codes them best; "
        f"{table.routed_bits_per_byte:.3f} bits per byte, against {table.oracle_bits_per_byte:.3f} if all went to the best"
    )


def _made(table: TableStatus) -> Says:
    return Says(True, Reason.READY, f"the table tells apart {table_summary(table)}")


def _on_its_way(state: PoolState, work: Work, now: datetime) -> Says:
    """Return what the condition TableReady says while a new table is being made."""
    if work.state == "Failed" and work.incident is not None:
        message = (
            f"the table of the Distilled strategy could not be made: {work.incident.message}. Requests are routed "
            "without it; it is tried again when another revision should serve"
        )
        return Says(False, work.incident.reason, message)
    if work.incident is not None:
        return Says(False, Reason.RETRYING, f"{work.incident.message}; attempt {work.number} follows")
    if work.state == "Wanted" and state.pool.spec.paused:
        return Says(None, Reason.PAUSED, "spec.paused is true, so no table is made: set it to false")
    if work.state == "Wanted" and first_revisions_coming(state):
        return Says(False, Reason.PROGRESSING, "waiting until every Expert has its first revision")
    why = stuck_job(work.job, now) if work.job is not None else None
    words = f"the table is being made{f'; {why.message}' if why else ''}"
    return Says(False, Reason.PROGRESSING, words)


def roster_of(state: PoolState) -> Roster | None:
    """Return the roster of a pool; None if fewer than two Experts should serve, or if they share no holdout."""
    found = []
    for name in sorted(state.experts):
        expert = state.experts[name]
        revision = target_of(expert, state.revisions)
        if revision is not None and expert.metadata.deletion_timestamp is None:
            found.append((expert, revision))
    found = chosen(found, lambda member: (not member[0].spec.serving.replicas, *age(member[0])))
    suite = _measured_by_all([revision for _, revision in found])
    return Roster(tuple(found), tuple(suite)) if len(found) > 1 and suite else None


def artefact_digest(revision: ExpertRevision) -> str:
    """Return the digest of a revision's artefact, or an empty string if it has none."""
    return revision.status.artefact.digest if revision.status.artefact is not None else ""


def _measured_by_all(revisions: list[ExpertRevision]) -> list[HoldoutInput]:
    """Return the anchors of domains that every revision was measured on: the distill Job scores nothing itself."""
    suites = [
        {item.window.digest: item for item in revision.spec.suite if item.domain} for revision in revisions
    ]
    if not suites:
        return []
    common = set.intersection(*(set(suite) for suite in suites))
    return sorted((suites[0][digest] for digest in common), key=lambda item: (item.domain or "", item.expert))


def first_revisions_coming(state: PoolState) -> bool:
    """Return whether some Expert of the pool is about to get its first revision."""

    def coming(expert: Expert) -> bool:
        reconciling = find_condition(expert.status.conditions, ConditionType.RECONCILING)
        return (
            expert.status.current_revision is None
            and expert.metadata.deletion_timestamp is None
            and not expert.spec.paused
            and (reconciling is None or reconciling.status == "True")
        )

    return any(coming(expert) for expert in state.experts.values())


def _table(headline: DistillHeadline, roster: Roster) -> TableStatus:
    return TableStatus(
        path=headline.path,
        digest=headline.digest,
        roster=roster.digest(),
        experts=[expert.metadata.name for expert, _ in roster.members],
        accuracy=headline.accuracy,
        routed_bits_per_byte=headline.routed_bits_per_byte,
        oracle_bits_per_byte=headline.oracle_bits_per_byte,
        random_bits_per_byte=headline.random_bits_per_byte,
        posterior_bits_per_byte=headline.posterior_bits_per_byte,
        posterior_temperature=headline.posterior_temperature,
        familiar=headline.familiar,
    )


def _jobs(state: PoolState, roster: str) -> tuple[ObservedJob, ...]:
    first = distill_job_name(state.pool.metadata.name, roster, 1)
    return tuple(job for job in state.jobs if job.role is Role.DISTILL and is_attempt(job.name, first))


def _delete(state: PoolState, *, keep: tuple[ObservedJob, ...]) -> tuple[ObjectRef, ...]:
    kept = {job.name for job in keep}
    namespace = state.pool.metadata.namespace
    return tuple(
        job_ref(job, namespace)
        for job in state.jobs
        if job.role is Role.DISTILL and job.name not in kept and not job.deleting
    )
