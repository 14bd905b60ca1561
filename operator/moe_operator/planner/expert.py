"""Decides what should be done about one Expert now.

    validation -> base -> data -> demand for a revision -> making it -> measuring drift -> serving -> status

Every stage is a pure function of what was observed and of what the stages before it decided. This file puts the stages
in order and collects what they ask for in one Plan. The operator may be killed between any two writes without losing
anything: each write goes to an object in the API server, and the next plan starts from those objects.
"""

from collections.abc import Iterator
from datetime import datetime

from moe_operator.builders.revision import build_revision
from moe_operator.config import OperatorConfig
from moe_operator.planner.base import decide_base
from moe_operator.planner.blockage import next_look
from moe_operator.planner.children import missing_gang, superfluous_gang
from moe_operator.planner.data import answering_snapshot, decide_data, new_snapshot_job
from moe_operator.planner.decisions import Decisions
from moe_operator.planner.demand import decide_wanted, new_revision
from moe_operator.planner.evaluators import asked_evaluators
from moe_operator.planner.expert_events import expert_events
from moe_operator.planner.expert_status import expert_status
from moe_operator.planner.making import make
from moe_operator.planner.measuring import plan_measuring
from moe_operator.planner.names import revision_name
from moe_operator.planner.reading import request_of
from moe_operator.planner.retention import superfluous_jobs
from moe_operator.planner.revision_status import revision_writes
from moe_operator.planner.serving import plan_serving
from moe_operator.planner.status_writes import status_write
from moe_operator.planner.suite import awaited_domains
from moe_operator.planner.times import LOOK_AGAIN
from moe_operator.planner.validation import validate
from moe_operator.planner.withdrawal import moved
from moe_operator.state import ExpertState, Manifest, Plan


def plan_expert(state: ExpertState, config: OperatorConfig, now: datetime) -> Plan:
    """Return what should be done now: nothing for an Expert that is being deleted, whose children Kubernetes deletes."""
    if state.expert.metadata.deletion_timestamp is not None:
        return Plan()
    return _plan(_decide(state, config, now))


def _decide(observed: ExpertState, config: OperatorConfig, now: datetime) -> Decisions:
    state = moved(observed, now)
    expert = state.expert
    asked = request_of(expert, now=now, evaluators=asked_evaluators(expert, state.pool))
    base = decide_base(state)
    wanted = decide_wanted(state, base, answering_snapshot(state, asked))
    decided = Decisions(
        state=state,
        config=config,
        now=now,
        finding=validate(state, config),
        base=base,
        wanted=wanted,
        data=decide_data(state, asked, busy=wanted.undecided, now=now),
        moved={
            before.metadata.name: before
            for before, after in zip(observed.revisions, state.revisions, strict=True)
            if before is not after
        },
    )
    decided.awaited = _awaited(decided)
    decided.making = make(decided)
    decided.measuring = plan_measuring(decided)
    decided.create = tuple(_creations(decided))
    decided.serving = plan_serving(decided)
    return decided


def _plan(decided: Decisions) -> Plan:
    state, serving = decided.state, decided.serving
    status = expert_status(decided)
    statuses = (*revision_writes(decided), *status_write(state.expert, status))
    events = expert_events(decided, status) if statuses or serving.events else ()
    return Plan(
        create=decided.create,
        apply=(*missing_gang(state), *serving.apply),
        scale=serving.scale,
        delete=(*superfluous_jobs(decided), *superfluous_gang(state)),
        statuses=statuses,
        events=(*events, *serving.events),
        requeue=_earliest(decided),
    )


def _awaited(decided: Decisions) -> tuple[str, ...]:
    """Return the other Experts whose first snapshot a new revision waits for.

    The suite of that revision should contain those snapshots' anchors.
    """
    state = decided.state
    if decided.wanted.inputs is None or state.pool is None:
        return ()
    name = state.expert.metadata.name
    return tuple(awaited_domains(peer for other, peer in state.peers.items() if other != name))


def _creations(decided: Decisions) -> Iterator[Manifest]:
    """Yield the Jobs and the revision that have to be created now."""
    state, data, wanted = decided.state, decided.data, decided.wanted
    if decided.making is not None:
        yield from decided.making.create
    yield from decided.measuring.create
    if not decided.may_start or state.pool is None:
        return
    if data.request is not None and data.work is not None and data.work.state == "Wanted":
        yield new_snapshot_job(state, state.pool, data.request, data.work.number, decided.config)
    snapshot = state.expert.status.snapshot
    if (
        wanted.demand is not None
        and wanted.inputs is not None
        and snapshot is not None
        and not decided.awaited
    ):
        spec = new_revision(state, wanted.demand, wanted.inputs, snapshot)
        name = revision_name(state.expert.metadata.name, spec.number)
        yield build_revision(name=name, expert=state.expert, spec=spec)


def _earliest(decided: Decisions) -> float | None:
    """Return the seconds until the Expert has to be looked at again even if nothing changes, or None."""
    starting = [pod for server in decided.state.servers if not server.ready_replicas for pod in server.pods]
    waits = [
        decided.data.wait,
        decided.making.wait if decided.making is not None else None,
        decided.measuring.wait,
        next_look(None, starting, decided.now),
    ]
    passing = decided.finding is not None and decided.mistake is None
    if decided.awaited or passing or not decided.base.ready:
        waits.append(LOOK_AGAIN)
    known = [wait for wait in waits if wait is not None]
    return min(known) if known else None
