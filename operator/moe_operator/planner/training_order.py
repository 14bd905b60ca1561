"""Decides which training of a pool starts first if more wait than may run.

    FirstCome   in the order in which the Jobs were created
    Adaptive    by the expected gain per device-second of each: what the Expert's last measured refresh gained per new byte,
                times the new bytes, over the device-seconds which that refresh took

Gain is the mean of ln(b_before / b_after) on the newest window, where b is bits per byte. Where a number was not measured,
nothing can be expected: such a Job comes first, since only training it brings the numbers. So does a Job that has waited
for a week, so that every Expert with new data is trained at least that often.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision
from moe_operator.planner.names import revision_of
from moe_operator.state import ObservedJob, Role

#: Longest time that a Job waits for others with a larger expected gain.
LONGEST_WAIT = timedelta(weeks=1)


def in_order(
    jobs: Sequence[ObservedJob], pool: ExpertPool, revisions: Mapping[str, ExpertRevision], now: datetime
) -> list[ObservedJob]:
    """Return the waiting Jobs of a pool that train, or measure drift, in the order in which they should start."""
    came = sorted(jobs, key=lambda job: (job.created, job.name))
    if pool.spec.budget.training_order == "FirstCome":
        return came
    expected = {job.name: _expected(job, revisions) for job in came if now < job.created + LONGEST_WAIT}
    first = [job for job in came if expected.get(job.name) is None]
    others = [job for job in came if job not in first]
    return [*first, *sorted(others, key=lambda job: -(expected[job.name] or 0.0))]


def expected_gain(revision: ExpertRevision, revisions: Mapping[str, ExpertRevision]) -> float | None:
    """Return the expected gain per device-second of training a revision; None if something was not measured.

    ``revisions`` are those of the pool by name.
    """
    new = _new_bytes(revision, revisions)
    own = [item for item in revisions.values() if item.spec.expert_uid == revision.spec.expert_uid]
    for before in sorted(own, key=lambda item: -item.spec.number):
        gain, had, cost = _gain(before), _new_bytes(before, revisions), before.status.device_seconds
        if gain is not None and had is not None and cost:
            return gain / had * new / cost if new is not None else None
    return None


def _expected(job: ObservedJob, revisions: Mapping[str, ExpertRevision]) -> float | None:
    revision = revisions.get(revision_of(job.name) or "") if job.role is Role.TRAIN else None
    return expected_gain(revision, revisions) if revision is not None else None


def _new_bytes(revision: ExpertRevision, revisions: Mapping[str, ExpertRevision]) -> int | None:
    """Return by how much a revision's training text is larger than its parent's; None if it is not a refresh of the parent."""
    parent = revision.spec.inputs.parent
    before = revisions.get(parent.revision) if parent is not None else None
    if before is None or before.spec.expert_uid != revision.spec.expert_uid:
        return None
    had, has = before.spec.train_bytes, revision.spec.train_bytes
    return has - had if had is not None and has is not None and has > had else None


def _gain(revision: ExpertRevision) -> float | None:
    """Return the measured gain over the revision before, on the newest window; None if there is none."""
    evidence = revision.status.evidence
    decisions = evidence.decisions if evidence is not None else []
    against = [item for item in decisions if item.against == "current"]
    newest = next((item for item in against if item.role == "window"), next(iter(against), None))
    return -newest.interval.value if newest is not None else None
