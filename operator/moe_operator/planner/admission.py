"""Decides which suspended Jobs of a pool start now. With a queue of Kueue, they enter the queue instead, which starts them.

snapshots           One at a time, since all append to one registry of held-out documents. Domains come before the
                    bases that they branch from. Mixtures come last, once the first snapshots of the domains are taken.
training, evaluate  As many as the pool's budget allows, evaluation first: what has begun is finished before more begins.
                    In which order trainings start is decided in training_order.py.
drift, matrix       Within the same budget, in the same order as trainings.
grade, distill      Always: they are small.
gangs               Training Jobs of several pods start one at a time: if two of them had got half of their nodes each,
                    both would wait forever.

Nothing starts before the pool's claim is bound, except one snapshot: the claim may wait for the first pod that uses it.
A snapshot whose pod does not start gives way to another one that can start. It is suspended, and waits twice as long for
each further turn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from moe_formats.resources.expert import Expert
from moe_operator.planner.attempts import is_alive
from moe_operator.planner.blockage import stuck_job
from moe_operator.planner.suite import awaited_domains, snapshot_is_blocked, snapshot_is_coming
from moe_operator.planner.times import LONGEST_TURN_WAIT, LOOK_AGAIN, SAME_APPLY, SNAPSHOT_TURN
from moe_operator.planner.training_order import in_order
from moe_operator.state import ObservedJob, PoolState, Role


@dataclass(frozen=True)
class Admission:
    """Jobs to start, Jobs whose turn is over, and when to look again."""

    start: tuple[ObservedJob, ...] = ()
    #: Snapshot Jobs to suspend, for another one that can start.
    yield_turn: tuple[ObservedJob, ...] = ()
    #: Seconds until time alone changes the decision.
    wait: float | None = None


def admit(state: PoolState, *, now: datetime, queue: str = "") -> Admission:
    """Return the Jobs that may start; none while the pool is paused.

    With a ``queue`` of Kueue, a Job counts as started once it is in the queue. How many Jobs train at the same time is then
    for Kueue to decide, and so is which Job gives way to another.
    """
    if state.pool.spec.paused:
        return Admission()
    unfinished = [_handed_over(job) for job in state.jobs if job.state in ("Suspended", "Running")]
    jobs = [job for job in unfinished if not job.deleting]
    snapshots = _admit_snapshot(state, [job for job in unfinished if job.role is Role.SNAPSHOT], now=now)
    if state.claim_phase != "Bound":
        return snapshots if state.claim_phase == "Pending" else Admission()
    others = _admit_training(jobs, state, unlimited=bool(queue), now=now)
    small = tuple(
        job
        for job in jobs
        if (job.role is Role.DISTILL and job.suspended)
        or (job.role is Role.GRADE and _may_start(job, state.experts))
    )
    return Admission(
        snapshots.start + others + small, snapshots.yield_turn if not queue else (), snapshots.wait
    )


def _handed_over(job: ObservedJob) -> ObservedJob:
    """Return a Job as the pool's order sees it: one that is in a queue was started, though Kueue may hold it back."""
    return replace(job, suspended=False) if job.queue else job


def _admit_snapshot(state: PoolState, jobs: Sequence[ObservedJob], *, now: datetime) -> Admission:
    experts = state.experts
    queue = sorted((job for job in jobs if _may_start(job, experts)), key=lambda job: _turn(job, experts))
    if not queue:
        return Admission()
    waits = [(job, _wait(job, experts, now)) for job in queue]
    free = next((job for job, wait in waits if wait is None), None)
    later = min((wait for _, wait in waits if wait is not None), default=None)
    running = [job for job in jobs if not job.suspended]
    if running:
        over = tuple(job for job in running if not job.deleting and _turn_is_over(job, now)) if free else ()
        return Admission(yield_turn=over, wait=SNAPSHOT_TURN.total_seconds() if free else later)
    left = [*state.orphan_snapshots, *(pod for job in jobs for pod in job.pods)]
    if any(is_alive(pod) for pod in left):
        return Admission(wait=LOOK_AGAIN)
    return Admission(start=(free,)) if free is not None else Admission(wait=later)


def _wait(job: ObservedJob, experts: Mapping[str, Expert], now: datetime) -> float | None:
    """Return the seconds that a snapshot waits for its turn or for others; None if it may start."""
    if job.turns and job.interrupted is not None:
        pause = min(SNAPSHOT_TURN * 2 ** min(job.turns - 1, 10), LONGEST_TURN_WAIT)
        left: float = (job.interrupted + pause - now).total_seconds()
        if left > 0:
            return left
    return _must_wait(experts.get(job.expert), experts, now)


def _must_wait(expert: Expert | None, experts: Mapping[str, Expert], now: datetime) -> float | None:
    """Return the seconds that a snapshot waits for others that may still come before it; None if it may start."""
    if expert is None:
        return None
    children = [peer for peer in experts.values() if peer.spec.base.expert == expert.metadata.name]
    before = (
        children
        if expert.spec.domain
        else [*children, *map(experts.__getitem__, awaited_domains(experts.values()))]
    )
    if any(snapshot_is_coming(peer) for peer in before):
        return SAME_APPLY.total_seconds()
    if expert.spec.domain is None:
        newest = max(
            (
                peer.metadata.creation_timestamp
                for peer in experts.values()
                if peer.metadata.creation_timestamp
            ),
            default=None,
        )
        if newest is not None and now < newest + SAME_APPLY:
            return (newest + SAME_APPLY - now).total_seconds()
    return None


def _turn(job: ObservedJob, experts: Mapping[str, Expert]) -> tuple[bool, bool, int, datetime, str]:
    expert = experts.get(job.expert)
    blocked_before = expert is not None and snapshot_is_blocked(expert)
    mixture = expert is not None and expert.spec.domain is None
    since = job.interrupted if job.turns and job.interrupted is not None else job.created
    return (blocked_before, mixture, _height(job.expert, experts), since, job.name)


def _height(name: str, experts: Mapping[str, Expert], seen: frozenset[str] = frozenset()) -> int:
    """Return how many generations of Experts branch from an Expert; the count ends at a cycle."""
    children = [peer.metadata.name for peer in experts.values() if peer.spec.base.expert == name]
    return max(
        (1 + _height(child, experts, seen | {name}) for child in children if child not in seen), default=0
    )


def _turn_is_over(job: ObservedJob, now: datetime) -> bool:
    started = max((pod.created for pod in job.pods), default=job.started)
    return started is not None and stuck_job(job, now) is not None and now >= started + SNAPSHOT_TURN


def _admit_training(
    jobs: Sequence[ObservedJob], state: PoolState, *, unlimited: bool, now: datetime
) -> tuple[ObservedJob, ...]:
    heavy = [job for job in jobs if job.role in (Role.TRAIN, Role.EVALUATE, Role.DRIFT, Role.MATRIX)]
    room = state.pool.spec.budget.training_jobs - sum(not job.suspended for job in heavy)
    waiting = sorted(
        (job for job in heavy if _may_start(job, state.experts)), key=lambda job: (job.created, job.name)
    )
    others = [job for job in waiting if job.role is not Role.EVALUATE]
    trainings = in_order(others, state.pool, state.revisions, now)
    queue = [*(job for job in waiting if job.role is Role.EVALUATE), *trainings]
    if unlimited:
        return tuple(queue)
    first_gang = next((job for job in queue if job.width > 1), None)
    gang_runs = any(job.width > 1 and not job.suspended for job in heavy)
    fitting = [job for job in queue if job.width == 1 or (job is first_gang and not gang_runs)]
    return tuple(fitting[: max(room, 0)])


def _may_start(job: ObservedJob, experts: Mapping[str, Expert]) -> bool:
    """Return whether a Job of the pool itself, or of an Expert that is not paused, waits to be started."""
    expert = experts.get(job.expert)
    allowed = not job.expert or (expert is not None and not expert.spec.paused)
    return job.suspended and not job.deleting and allowed
