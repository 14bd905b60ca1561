"""Decides what is proposed for the Experts of a pool: every act is asked about every Expert, and its mode decides.

A proposal has the digest of its evidence in its name, so that the same evidence is never proposed twice: not while a
proposal is open, and not after it was done, rejected or expired. At most 8 are open at a time. The newest finished ones
are kept for people to read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from moe_formats.resources import labels
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_proposal import FINISHED, ExpertProposal, ExpertProposalSpec
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.lifecycle import Act, ActStatus, LifecycleStatus, Mode
from moe_operator.builders.proposal import build_proposal
from moe_operator.planner.acts import ACTS
from moe_operator.planner.acts.policy import Found, evidence_of
from moe_operator.planner.modes import asked_mode, effective, misses, mode_for, row_of
from moe_operator.planner.names import proposal_name
from moe_operator.planner.proposal_start import started_since
from moe_operator.planner.times import BUDGET_PERIOD
from moe_operator.state import Manifest, Member, ObjectRef, PoolState

#: Largest number of proposals that are open in a pool, and of finished ones that are kept.
MOST_OPEN, KEPT = 8, 64
_OPEN = ("", "Open", "Approved")


@dataclass(frozen=True)
class Proposals:
    """What is proposed now, which old proposals go, and what the pool's status says of it."""

    create: tuple[Manifest, ...] = ()
    delete: tuple[ObjectRef, ...] = ()
    status: LifecycleStatus | None = None


@dataclass(frozen=True)
class _Draft:
    name: str
    mode: Mode
    expert: Expert
    spec: ExpertProposalSpec


def plan_proposals(state: PoolState, now: datetime) -> Proposals:
    """Return the proposals to create now, those to delete, and the status."""
    drafts = list(_drafts(state, now))
    taken = state.proposals.keys() | state.foreign_proposals
    new = [item for item in drafts if item.mode != "Off" and item.name not in taken]
    room = max(MOST_OPEN - sum(item.status.phase in _OPEN for item in state.proposals.values()), 0)
    held = {item.name: item.spec.act for item in drafts if item.mode == "Off" and item.name not in taken}
    return Proposals(
        create=tuple(
            build_proposal(name=item.name, expert=item.expert, spec=item.spec)
            for item in new[:room]
            if not state.pool.spec.paused
        ),
        delete=tuple(_outdated(state)),
        status=_status(state, held, waiting=len(new[room:]), now=now),
    )


def members(state: PoolState) -> Iterator[Member]:
    """Yield the Experts of a pool that are not being deleted, in the order of their names."""
    for name in sorted(state.experts):
        expert = state.experts[name]
        if expert.metadata.deletion_timestamp is None:
            base = state.experts.get(expert.spec.base.expert or "")
            line = _revisions(state, base) if base is not None else {}
            yield Member(
                expert=expert,
                pool=state.pool,
                revisions=tuple(
                    sorted(_revisions(state, expert).values(), key=lambda item: item.spec.number)
                ),
                base_revisions=line,
                base_revision=line.get(base.status.current_revision or "") if base is not None else None,
                traffic=state.traffic,
            )


def _revisions(state: PoolState, expert: Expert) -> dict[str, ExpertRevision]:
    uid = expert.metadata.uid
    return {name: item for name, item in state.revisions.items() if item.spec.expert_uid == uid}


def _drafts(state: PoolState, now: datetime) -> Iterator[_Draft]:
    known = list(members(state))
    for act, policy in ACTS.items():
        for member in known:
            found = policy.trigger(member, now)
            if found is not None:
                yield _draft(act, member, found, now)


def _draft(act: Act, member: Member, found: Found, now: datetime) -> _Draft:
    name = member.expert.metadata.name
    spec = ExpertProposalSpec(
        pool=member.pool.metadata.name,
        expert=name,
        act=act,
        revision=found.parent if act is Act.ROLL_BACK else None,
    )
    evidence = evidence_of(act, member, found, now)
    mode = mode_for(act, member.pool, member.expert)
    return _Draft(proposal_name(name, act, evidence.digest), mode, member.expert, spec)


def _outdated(state: PoolState) -> Iterator[ObjectRef]:
    """Yield the operator's own proposals that are finished, all but the newest."""
    done = [
        item
        for item in state.proposals.values()
        if item.status.phase in FINISHED | {"Superseded"}
        and item.metadata.labels.get(labels.MANAGED_BY) == labels.FIELD_MANAGER
    ]
    done.sort(key=lambda item: (item.status.finished or "", item.metadata.name))
    for item in done[:-KEPT]:
        metadata = item.metadata
        yield ObjectRef(labels.API_VERSION, "ExpertProposal", metadata.namespace, metadata.name, metadata.uid)


def _status(state: PoolState, held: dict[str, Act], *, waiting: int, now: datetime) -> LifecycleStatus | None:
    proposals = list(state.proposals.values())
    before = state.pool.status.lifecycle
    rows = [row for act in Act if (row := _row(state, act, proposals, held, now)) is not None]
    if before is None and not rows and not waiting:
        return None
    started = len(started_since(proposals, now - BUDGET_PERIOD))
    return LifecycleStatus(acts=rows, started=started, waiting_for_room=waiting)


def _row(
    state: PoolState, act: Act, proposals: list[ExpertProposal], held: dict[str, Act], now: datetime
) -> ActStatus | None:
    """Return the row of an act; None if it was never proposed nor held back."""
    before = row_of(state.pool, act)
    own = [item for item in proposals if item.spec.act is act]
    names = sorted(name for name, of in held.items() if of is act)[:MOST_OPEN]
    if before is None and not own and not names:
        return None
    asked = asked_mode(act, state.pool, state.experts.values())
    since, missed = misses(act, before, asked, own, now)
    known = before.held_back if before is not None else []
    return ActStatus(
        act=act,
        mode=asked,
        effective=effective(asked, missed),
        since=since,
        open=sum(item.status.phase in _OPEN for item in own),
        running=sum(item.status.phase in ("Running", "Undoing") for item in own),
        held_back=names,
        held_back_total=(before.held_back_total if before is not None else 0)
        + len([name for name in names if name not in known]),
        missed=missed,
    )
