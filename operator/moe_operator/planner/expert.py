"""What should be done about one Expert now.

    validate -> data -> base -> which revision is wanted -> make it -> serve the current one -> status

Every stage is a pure function of what was observed; this file puts them in order and adds up what they
ask for. Killing the operator between any two writes loses nothing: each write is an API object, and the
next plan starts from those.
"""

from dataclasses import dataclass
from datetime import datetime

from moe_formats.resources.expert_revision import ExpertRevision
from moe_operator.builders.revision import build_revision
from moe_operator.config import OperatorConfig
from moe_operator.planner.base import BaseDecision, decide_base, pinned_base
from moe_operator.planner.data import DataDecision, decide_data, new_snapshot_job
from moe_operator.planner.decisions import Decisions
from moe_operator.planner.expert_events import expert_events
from moe_operator.planner.expert_status import expert_status
from moe_operator.planner.gang import missing_gang, superfluous_gang
from moe_operator.planner.lineage import by_name
from moe_operator.planner.making import Context, Making, make
from moe_operator.planner.names import revision_name
from moe_operator.planner.retention import superfluous_jobs
from moe_operator.planner.revision_status import revision_status, superseded_status
from moe_operator.planner.rollout import plan_rollout
from moe_operator.planner.status_writes import status_write
from moe_operator.planner.suite import awaited_domains
from moe_operator.planner.validation import may_pass, validate
from moe_operator.planner.wanted import Wanted, decide_wanted, new_revision
from moe_operator.state import ExpertState, Manifest, Plan, StatusWrite

#: Seconds after which an Expert that waits for others looks again, should their news be lost.
WAITING_SECONDS = 5.0


@dataclass(frozen=True)
class _Work:
    """What the data and the revision in the making ask for."""

    data: DataDecision
    base: BaseDecision
    wanted: Wanted
    awaited: tuple[str, ...] = ()
    making: Making | None = None
    create: tuple[Manifest, ...] = ()


def plan_expert(state: ExpertState, config: OperatorConfig, now: datetime) -> Plan:
    """Return what should be done now; an Expert that is going away is left to the garbage collector."""
    expert = state.expert
    if expert.metadata.deletion_timestamp is not None:
        return Plan()
    finding = validate(state, config)
    paused = expert.spec.paused or (state.pool is not None and state.pool.spec.paused)
    work = _plan_work(state, config, now, may_start=finding is None and not paused)
    rollout = plan_rollout(state, work.wanted.current, _starting(state, work), config)
    decisions = Decisions(
        state=state,
        finding=None if finding is None or may_pass(finding, expert, now=now) else finding,
        paused=paused,
        data=work.data,
        base=work.base,
        wanted=work.wanted,
        awaited=work.awaited,
        making=work.making,
        rollout=rollout,
        created=bool(work.create),
    )
    status = expert_status(decisions, now)
    statuses = (*_revision_writes(state, work, now), *status_write(expert, status))
    return Plan(
        create=work.create,
        apply=(*missing_gang(state), *rollout.apply),
        delete=(
            *superfluous_jobs(
                state,
                data=work.data,
                subject=_subject(work),
                decided=work.data.answers and work.base.ready,
            ),
            *superfluous_gang(state),
        ),
        statuses=statuses,
        events=(*expert_events(decisions, status), *rollout.events) if statuses or rollout.events else (),
        requeue=_earliest(work),
    )


def _plan_work(state: ExpertState, config: OperatorConfig, now: datetime, *, may_start: bool) -> _Work:
    base = decide_base(state)
    before = decide_wanted(state, base, state.expert.status.snapshot)
    data = decide_data(state, busy=_is_busy(before), now=now)
    wanted = decide_wanted(state, base, data.snapshot if data.answers else None)
    pool = state.pool
    if pool is None:
        return _Work(data, base, wanted)
    create: list[Manifest] = []
    if may_start and data.request is not None and data.work is not None and data.work.state == "Wanted":
        create.append(new_snapshot_job(state, pool, data.request, data.work.number, config))
    awaited: tuple[str, ...] = ()
    making = None
    if wanted.revision is not None:
        context = Context(
            state=state,
            pool=pool,
            config=config,
            now=now,
            may_start=may_start,
            current=wanted.current,
            base=base.parent if base.parent is not None else pinned_base(state),
        )
        making = make(wanted.revision, context)
        create.extend(making.create)
    elif wanted.inputs is not None and data.snapshot is not None:
        others = [peer for name, peer in state.peers.items() if name != state.expert.metadata.name]
        awaited = tuple(awaited_domains(others))
        if may_start and not awaited:
            spec = new_revision(state, wanted, data.snapshot)
            name = revision_name(state.expert.metadata.name, spec.number)
            create.append(build_revision(name=name, expert=state.expert, spec=spec))
    return _Work(data, base, wanted, awaited, making, tuple(create))


def _starting(state: ExpertState, work: _Work) -> ExpertRevision | None:
    """Return the revision whose servers start before it is promoted, once its evidence is written down."""
    if work.making is None or work.making.stage != "Starting":
        return None
    recorded = by_name(state.revisions)[work.making.revision.metadata.name].status.evidence
    return work.making.revision if recorded is not None else None


def _is_busy(wanted: Wanted) -> bool:
    """Say whether a revision is in the making, or about to be."""
    if wanted.revision is not None:
        return wanted.revision.status.verdict is None
    return wanted.inputs is not None


def _subject(work: _Work) -> str | None:
    """Return the name of the revision whose Jobs matter: the one in the making, else the current one."""
    subject = work.wanted.revision or work.wanted.current
    return subject.metadata.name if subject is not None else None


def _revision_writes(state: ExpertState, work: _Work, now: datetime) -> tuple[StatusWrite, ...]:
    """Return the status of the revision in the making, and of those that it took the place of."""
    writes = []
    making = work.making
    if making is not None:
        status = revision_status(making.revision, making.status, now=now)
        writes.append((making.revision, status))
    if work.data.answers and work.base.ready:
        subject = _subject(work)
        for revision in state.revisions:
            if revision.status.verdict is None and revision.metadata.name != subject:
                writes.append((revision, superseded_status(revision, by=subject, now=now)))
    return tuple(write for revision, status in writes for write in status_write(revision, status))


def _earliest(work: _Work) -> float | None:
    """Return when to look again: the soonest of what time alone will change."""
    waits = [work.data.wait, work.making.wait if work.making is not None else None]
    if work.awaited or not work.base.ready:
        waits.append(WAITING_SECONDS)
    known = [wait for wait in waits if wait is not None]
    return min(known) if known else None
