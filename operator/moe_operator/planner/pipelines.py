"""Sums up how the data of a pool's Experts develop: what was read, and what the revisions made of it gained.

Everything is about the 24 hours before the newest of these events: a snapshot with new text, or a promotion. So the numbers
change when something happens, and not because time passes: a settled pool is not written again.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from math import exp, fsum

from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.expert_status import Admitted, SnapshotStatus
from moe_formats.resources.pipelines import PipelinesStatus
from moe_operator.planner.lineage import is_promoted
from moe_operator.state import PoolState

WINDOW = timedelta(hours=24)
_HOUR = timedelta(hours=1)


def pipelines_status(state: PoolState) -> PipelinesStatus | None:
    """Return the numbers for a pool's status; None while none of its Experts has a snapshot."""
    experts = state.experts.values()
    if all(expert.status.snapshot is None for expert in experts):
        return None
    admitted = [item for expert in experts for item in _admitted(expert)]
    promoted = dict(_promotions(state.revisions.values()))
    until = max([*(item.hour for item in admitted), *promoted.values()], default=None)
    day = [item for item in admitted if until is not None and until - item.hour < WINDOW]
    gains = [
        gain
        for name, time in sorted(promoted.items())
        if until is not None and until - time < WINDOW
        if (gain := _gain(state.revisions[name])) is not None
    ]
    scores = {
        name: expert.status.scores.specialization_score.value
        for name, expert in sorted(state.experts.items())
        if expert.status.scores is not None and expert.status.scores.specialization_score is not None
    }
    absent = {} if gains else {"improvement": "no revision was promoted over another one"}
    if not scores:
        absent["specialization"] = "it was measured for no Expert"
    return PipelinesStatus(
        until=until,
        active=sum(_is_active(expert, state) for expert in experts),
        documents=sum(item.documents for item in day),
        bytes=sum(item.bytes for item in day),
        promotions=len(gains),
        improvement=round(fsum(gains) / len(gains), 4) if gains else None,
        specialization=dict(list(scores.items())[:64]),
        absent=absent,
    )


def admitted_with(
    before: Iterable[Admitted], held: SnapshotStatus | None, taken: SnapshotStatus, now: datetime
) -> list[Admitted]:
    """Return what was admitted in the last day, with what a new snapshot has more than the one that was held."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    documents = max(taken.documents - (held.documents if held is not None else 0), 0)
    size = max(taken.train_bytes - (held.train_bytes if held is not None else 0), 0)
    kept = {item.hour: item for item in before if abs(now - item.hour) < WINDOW + _HOUR}
    if documents or size:
        same = kept.get(hour, Admitted(hour=hour, documents=0, bytes=0))
        kept[hour] = Admitted(hour=hour, documents=same.documents + documents, bytes=same.bytes + size)
    return [kept[item] for item in sorted(kept)]


def _admitted(expert: Expert) -> list[Admitted]:
    return expert.status.refresh.admitted if expert.status.refresh is not None else []


def _is_active(expert: Expert, state: PoolState) -> bool:
    data = expert.spec.data
    asks = data.refresh != "never" or data.refresh_schedule is not None
    return asks and not expert.spec.paused and not state.pool.spec.paused


def _promotions(revisions: Iterable[ExpertRevision]) -> Iterator[tuple[str, datetime]]:
    """Yield each promoted revision by name, with the time of its verdict."""
    for revision in revisions:
        verdict = revision.status.verdict
        if verdict is not None and is_promoted(revision):
            with suppress(
                ValueError
            ):  # only the operator writes times, but whoever may write a status can spoil one
                time = datetime.fromisoformat(verdict.time)
                yield revision.metadata.name, time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _gain(revision: ExpertRevision) -> float | None:
    """Return 1 - b_new / b_old on the newest window; None if the revision was compared with no other one."""
    evidence = revision.status.evidence
    against = [item for item in evidence.decisions if item.against == "current"] if evidence else []
    newest = next((item for item in against if item.role == "window"), next(iter(against), None))
    return 1 - exp(min(newest.interval.value, 100.0)) if newest is not None else None
