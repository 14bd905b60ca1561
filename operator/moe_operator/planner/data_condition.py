"""Words the condition DataReady of an Expert: what the newest snapshot has, or why there is no newer one yet."""

from datetime import datetime

from moe_formats.resources.conditions import Condition, ConditionType, condition, find_condition
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_status import SnapshotStatus
from moe_formats.resources.reasons import Reason
from moe_operator.planner.attempts import AWAITED, Incident, Work
from moe_operator.planner.blockage import STUCK, runs, stuck_job, waits_for_queue
from moe_operator.planner.times import LAST_RETRY
from moe_operator.state import ExpertState


def taken(expert: Expert, snapshot: SnapshotStatus) -> Condition:
    """Return what the condition says while a snapshot is the newest."""
    window = snapshot.newest or snapshot.anchor
    message = (
        f"{snapshot.documents} documents, {snapshot.train_bytes} bytes to train on; "
        f"{window.clusters} clusters held out in the newest window"
    )
    if snapshot.dropped:
        counts = ", ".join(f"{count} {reason}" for reason, count in snapshot.dropped.items())
        message += f"; dropped: {counts}"
    if (found := snapshot.unreadable) is not None and not found.segments:
        message += (
            f"; whether the base's tokenizer gives the text of the {found.of} held-out segments back could not be tried, so "
            f"some may not be measured: {found.why}"
        )
    elif found is not None:
        message += (
            f"; {found.segments} of {found.of} held-out segments cannot be measured, because the base's tokenizer does not give "
            f"their text back: {found.why}. Convert the sources to what it gives back"
        )
    return _say(expert, True, Reason.SNAPSHOT_TAKEN, message)


def pending(state: ExpertState, work: Work, due: datetime | None, now: datetime) -> Condition:
    """Return why there is no newer snapshot yet. ``due`` is when the sources are read again in any case."""
    expert = state.expert
    before = find_condition(expert.status.conditions, ConditionType.DATA_READY)
    if state.pool is None:
        return _say(
            expert,
            False,
            Reason.WAITING_FOR_POOL,
            f"pool {expert.spec.pool} does not exist, so no snapshot is taken",
        )
    if work.incident is not None and work.incident.reason in AWAITED:
        message = (
            f"{work.incident.message.rstrip(' .')}. The sources are read again by themselves, every "
            f"{LAST_RETRY.total_seconds() / 60:.0f} minutes; a new spec.runID reads them at once"
        )
        return _say(expert, False, work.incident.reason, message)
    if before is not None and before.reason in AWAITED and _same_spec(expert, before) and work.number > 1:
        # Another attempt is under way. Until it finds text, nothing has changed.
        return _say(expert, False, Reason(before.reason), before.message)
    if work.state == "Failed" and work.incident is not None:
        return _say(expert, False, work.incident.reason, _failed(expert, work.incident, due))
    if work.incident is not None:
        return _say(expert, False, Reason.RETRYING, f"{work.incident.message}; attempt {work.number} follows")
    stuck_before = before if before is not None and before.reason in STUCK else None
    if work.job is not None and work.job.suspended and work.job.queue:
        return _say(expert, False, Reason.WAITING_FOR_DATA, f"the snapshot {waits_for_queue(work.job)}")
    if work.job is None or work.job.suspended:
        if stuck_before is not None:
            # This Job had its turn and could not start. It keeps saying so, so that others no longer wait for it.
            return _say(expert, False, Reason(stuck_before.reason), stuck_before.message)
        return _say(
            expert, False, Reason.WAITING_FOR_DATA, "the snapshot is queued: a pool takes one at a time"
        )
    if work.job.doubt is not None:
        return _say(expert, False, Reason.REPORT_CONTESTED, work.job.doubt)
    why = stuck_job(work.job, now)
    if why is not None:
        return _say(expert, False, *why)
    if not runs(work.job.pods):
        if stuck_before is not None:
            return _say(expert, False, Reason(stuck_before.reason), stuck_before.message)
        return _say(expert, False, Reason.STARTING, f"the pod of {work.job.name} is starting")
    return _say(expert, False, Reason.SNAPSHOT_RUNNING, f"{work.job.name} is reading the sources")


def _failed(expert: Expert, incident: Incident, due: datetime | None) -> str:
    """Return why no snapshot was taken, what to do about it, and when the sources are read again."""
    message = incident.message.rstrip(" .")
    if incident.reason is Reason.DELIVERY_REFUSED and expert.status.snapshot is not None:
        message += ". The newest snapshot stays in use"
    if due is not None:
        return (
            f"{message}. Correct the data or the spec; the sources are read again at {due:%Y-%m-%dT%H:%M:%SZ}"
        )
    return f"{message}. Correct the data or the spec, then change spec.runID to read it again"


def _same_spec(expert: Expert, before: Condition) -> bool:
    return before.observed_generation == expert.metadata.generation


def _say(expert: Expert, status: bool, reason: Reason, message: str) -> Condition:
    return condition(ConditionType.DATA_READY, status, reason, message, generation=expert.metadata.generation)
