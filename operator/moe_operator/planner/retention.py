"""Decides which Jobs are deleted: those whose result is recorded in a status and that nothing waits for any more.

The newest finished Jobs stay, for their logs. Failed attempts stay until their work is done or given up, because they
are counted. Grade Jobs, and snapshots whose sources are empty, are tried as often as it takes and not counted, so only the
newest of them stay.
"""

from moe_operator.planner.attempts import awaits_data
from moe_operator.planner.data import DataDecision
from moe_operator.planner.decisions import Decisions
from moe_operator.planner.names import revision_of
from moe_operator.planner.reading import jobs_of_request
from moe_operator.state import ExpertState, ObjectRef, ObservedJob, Role

#: Number of Jobs that stay of those that are tried without limit: enough for the wait between attempts to grow to the longest.
KEPT_ATTEMPTS = 8


def superfluous_jobs(decided: Decisions) -> tuple[ObjectRef, ...]:
    """Return the Jobs to delete. Jobs of other revisions are deleted only once the Expert's revision is certain."""
    state, subject = decided.state, decided.subject_name
    old = (
        *_old_snapshots(state, decided.data),
        *_old_gradings(state, subject),
        *(job for job in state.jobs if job.role is Role.DRIFT and job not in decided.measuring.keep),
    )
    gone = [job for job in old if not job.deleting]
    if decided.subject_is_known:
        gone += [
            job
            for job in state.jobs
            if job.role in (Role.TRAIN, Role.EVALUATE, Role.GRADE)
            and revision_of(job.name) != subject
            and not job.deleting
        ]
    return tuple(job_ref(job, state.expert.metadata.namespace) for job in gone)


def job_ref(job: ObservedJob, namespace: str) -> ObjectRef:
    """Return the reference of a Job by name and uid, so that no other Job of the same name is meant."""
    return ObjectRef("batch/v1", "Job", namespace, job.name, job.uid)


def _old_gradings(state: ExpertState, subject: str | None) -> list[ObservedJob]:
    own = [job for job in state.jobs if job.role is Role.GRADE and revision_of(job.name) == subject]
    return sorted(own, key=lambda job: job.created)[:-KEPT_ATTEMPTS]


def _old_snapshots(state: ExpertState, data: DataDecision) -> list[ObservedJob]:
    recorded = state.expert.status.snapshot
    kept = {recorded.job} if recorded is not None else set()
    if data.snapshot is not None:
        kept.add(data.snapshot.job)
    if data.request is not None:
        attempts = jobs_of_request(state.jobs, state.expert, data.request)
        tried = [job for job in attempts if awaits_data(job)]
        kept |= {job.name for job in attempts if job not in tried[:-KEPT_ATTEMPTS]}
    return [job for job in state.jobs if job.role is Role.SNAPSHOT and job.name not in kept]
