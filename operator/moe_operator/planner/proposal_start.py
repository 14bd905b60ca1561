"""Decides whether an approved proposal may start: its Expert is free, and the pool's budget allows another change."""

from collections.abc import Iterable
from datetime import datetime

from moe_formats.resources.expert_proposal import ExpertProposal
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.reasons import Reason
from moe_operator.planner.conditions import Why
from moe_operator.planner.times import BUDGET_PERIOD, PROPOSAL_LIFE
from moe_operator.state import Member, ProposalState


def why_not_yet(state: ProposalState, member: Member, now: datetime) -> tuple[Why, float] | None:
    """Return why an approved proposal does not start yet, and in how many seconds to look again; None if it may."""
    busy = _busy(state, member)
    if busy is not None:
        return busy, PROPOSAL_LIFE.total_seconds()
    budget, since = member.pool.spec.lifecycle.budget, now - BUDGET_PERIOD
    own = [item for item in state.others if item.spec.expert == state.proposal.spec.expert]
    for name, limit, proposals in (
        ("perExpert", budget.per_expert, own),
        ("perPool", budget.per_pool, state.others),
    ):
        times = started_since(proposals, since)
        if len(times) >= limit:
            message = (
                f"{len(times)} proposals started within 24 hours, of at most spec.lifecycle.budget.{name} = {limit} of pool "
                f"{member.pool.metadata.name}"
            )
            freed = times[len(times) - limit] + BUDGET_PERIOD - now if times and limit else PROPOSAL_LIFE
            return Why(Reason.WAITING_FOR_BUDGET, message), freed.total_seconds()
    return None


def _busy(state: ProposalState, member: Member) -> Why | None:
    """Return what else is being done with the Expert, or why nothing may be done with it now; None if it is free."""
    expert = member.expert
    name = expert.metadata.name
    if expert.spec.paused or member.pool.spec.paused:
        whose = f"Expert {name}" if expert.spec.paused else f"pool {member.pool.metadata.name}"
        return Why(Reason.PAUSED, f"spec.paused of {whose} is true")
    other = next(
        (
            item.metadata.name
            for item in state.others
            if item.spec.expert == name and item.status.phase in ("Running", "Undoing")
        ),
        None,
    )
    if other is not None:
        return Why(Reason.WAITING_FOR_TURN, f"proposal {other} is being carried out with {name}")
    made = next((item for item in member.revisions if _is_being_made(item)), None)
    if made is not None:
        return Why(Reason.WAITING_FOR_TURN, f"{made.metadata.name} is being made")
    return None


def _is_being_made(revision: ExpertRevision) -> bool:
    return revision.status.verdict is None and revision.status.phase != "Superseded"


def started_since(proposals: Iterable[ExpertProposal], since: datetime) -> list[datetime]:
    """Return when proposals started, of those that did after a time; the earliest first."""
    times = [time_of(item.status.started) for item in proposals]
    return sorted(time for time in times if time is not None and time > since)


def time_of(text: str | None) -> datetime | None:
    """Return the time that a text says, or None if it says none."""
    try:
        time = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return time if time is not None and time.utcoffset() is not None else None
