"""Decides about the data of an Expert: which stage the reading of its sources has reached, and what the newest snapshot has.

Which reading is asked for is decided in reading.py. A refresh that fails leaves the newest snapshot as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from moe_formats.data_scheme import NEWEST
from moe_formats.job_config import SnapshotRef
from moe_formats.job_report import SnapshotHeadline
from moe_formats.resources.conditions import Condition
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_status import Admitted, RefreshStatus, SnapshotStatus
from moe_formats.resources.reasons import Reason
from moe_operator.builders.snapshot_job import build_snapshot_job
from moe_operator.config import OperatorConfig, Profile
from moe_operator.planner.attempts import Work, assess
from moe_operator.planner.base import artefact_of_base, root_base
from moe_operator.planner.blockage import next_look
from moe_operator.planner.data_condition import pending, taken
from moe_operator.planner.job_configs import object_stores, places_read, snapshot_job, source_mounts
from moe_operator.planner.names import snapshot_job_name
from moe_operator.planner.pipelines import admitted_with
from moe_operator.planner.reading import (
    Request,
    due_after,
    gates_digest,
    is_due,
    jobs_of_request,
    newest_reading,
    next_request,
    noted,
)
from moe_operator.planner.times import LOOK_AGAIN
from moe_operator.state import ExpertState, Manifest, ObservedJob, Role


@dataclass(frozen=True)
class DataDecision:
    """The newest snapshot of an Expert, and the stage that the next one has reached."""

    condition: Condition
    #: The newest snapshot, for the status; None before the first.
    snapshot: SnapshotStatus | None
    #: Whether the recorded snapshot is what the spec asks for now. Only then may a revision be made from it.
    answers: bool
    #: Seconds until time alone changes the decision.
    wait: float | None = None
    #: The request and its Jobs, while another snapshot has to be taken.
    request: Request | None = None
    work: Work | None = None
    #: The newest reading of the sources, for the status; None before the first.
    refresh: RefreshStatus | None = None
    #: Whether this pass records a new snapshot in the status. The next pass decides what follows from it.
    fresh: bool = False


def answering_snapshot(state: ExpertState, asked: Request) -> SnapshotStatus | None:
    """Return the recorded snapshot if it has the digest that is asked for, whatever the number of its reading, or None."""
    held = state.expert.status.snapshot
    return held if held is not None and Request.parse(held.request).digest == asked.digest else None


def decide_data(state: ExpertState, asked: Request, *, busy: bool, now: datetime) -> DataDecision:
    """Return the newest snapshot and which stage the next one has reached.

    ``busy`` says whether a revision is being made, which postpones a refresh.
    """
    expert, held = state.expert, state.expert.status.snapshot
    same_question = answering_snapshot(state, asked) is not None
    newest = _newest(state, asked, now)
    due = newest is not None and _is_due(expert, newest, now)
    is_held = newest is not None and held is not None and held.request == str(newest.request)
    if held is not None and same_question and (busy or (is_held and not due)):
        return DataDecision(
            taken(expert, held),
            held,
            answers=True,
            wait=_until_due(expert, newest, now),
            refresh=_recorded(expert, newest),
        )
    over = newest is not None and (is_held or newest.work.state == "Failed")
    reading = newest if newest is not None and not (due and over) else _next(state, asked, newest, now)
    if isinstance(reading.work.headline, SnapshotHeadline) and reading.work.job is not None:
        snapshot = _snapshot_status(
            reading.work.headline,
            job=reading.work.job.name,
            request=reading.request,
            # spec.base may have changed since the reading was asked for.
            base=reading.status.base or str(expert.spec.base),
            now=now,
        )
        refresh, grown = _recorded(expert, reading), admitted_with(_admitted(expert), held, snapshot, now)
        return DataDecision(
            taken(expert, snapshot),
            snapshot,
            answers=same_question,
            wait=_until_due(expert, reading, now),
            refresh=refresh.model_copy(update={"admitted": grown}) if refresh is not None else None,
            fresh=True,
        )
    return _pending(state, reading, same_question=same_question, now=now)


@dataclass(frozen=True)
class _Reading:
    """A reading of the sources: what it was asked for, what the status says of it, and the stage its Jobs have reached."""

    request: Request
    status: RefreshStatus
    work: Work


def _newest(state: ExpertState, asked: Request, now: datetime) -> _Reading | None:
    """Return the newest reading for what is asked; None if there is none."""
    status = newest_reading(state.expert, asked)
    return _assessed(state, Request.parse(status.request), status, now) if status is not None else None


def _next(state: ExpertState, asked: Request, newest: _Reading | None, now: datetime) -> _Reading:
    """Return the reading that follows the newest one, or the first."""
    expert, request = state.expert, next_request(state.jobs, state.expert, asked)
    status = RefreshStatus(
        request=str(request),
        base=str(expert.spec.base),
        gates=gates_digest(expert),
        admitted=_admitted(expert),
    )
    if newest is not None:
        status = status.model_copy(update={"job": newest.status.job, "last": newest.status.last})
    return _assessed(state, request, status, now)


def _assessed(state: ExpertState, request: Request, status: RefreshStatus, now: datetime) -> _Reading:
    work = assess(jobs_of_request(state.jobs, state.expert, request), expect=SnapshotHeadline, now=now)
    return _Reading(request, noted(status, work.job, now), work)


def _pending(state: ExpertState, reading: _Reading, *, same_question: bool, now: datetime) -> DataDecision:
    """Return the decision while a reading has no result yet, or has failed."""
    expert, work, refresh = state.expert, reading.work, _recorded(state.expert, reading)
    if work.state == "Wanted" and _reads_for_another(
        state, jobs_of_request(state.jobs, expert, reading.request)
    ):
        work = replace(work, state="Ending", wait=LOOK_AGAIN)
    waits = [work.wait if work.wait is not None else _next_look(work, now)]
    waits.append(_until_due(expert, reading, now) if work.state == "Failed" else None)
    return DataDecision(
        pending(state, work, refresh.next if refresh is not None else None, now),
        expert.status.snapshot,
        answers=same_question,
        wait=min((wait for wait in waits if wait is not None), default=None),
        request=reading.request,
        work=work,
        refresh=refresh,
    )


def _is_due(expert: Expert, reading: _Reading, now: datetime) -> bool:
    """Return whether the sources are due again, or the delivery was refused by other limits than those of the spec now."""
    incident = reading.work.incident
    refused = incident is not None and incident.reason is Reason.DELIVERY_REFUSED
    return is_due(expert, reading.status, now) or (refused and reading.status.gates != gates_digest(expert))


def _until_due(expert: Expert, reading: _Reading | None, now: datetime) -> float | None:
    """Return the seconds until the sources are due again; None if they never are, or are due already and wait."""
    due = due_after(expert, reading.status) if reading is not None else None
    return (due - now).total_seconds() if due is not None and due > now else None


def _recorded(expert: Expert, reading: _Reading | None) -> RefreshStatus | None:
    """Return what the status says of a reading, with its next due time."""
    if reading is None:
        return expert.status.refresh
    due, held = due_after(expert, reading.status), expert.status.snapshot
    if (
        due is None
        and expert.status.refresh is None
        and held is not None
        and str(reading.request) == held.request
    ):
        return None  # nothing is gained by writing down what the snapshot says
    return reading.status.model_copy(update={"next": due})


def _admitted(expert: Expert) -> list[Admitted]:
    return expert.status.refresh.admitted if expert.status.refresh is not None else []


def _next_look(work: Work, now: datetime) -> float | None:
    return next_look(work.job, work.job.pods, now) if work.job is not None else None


def _reads_for_another(state: ExpertState, jobs: Sequence[ObservedJob]) -> bool:
    """Say whether a Job for an older question is still there: it goes first, so that no two read the sources."""
    return any(
        job.role is Role.SNAPSHOT and job.state in ("Suspended", "Running") and job not in jobs
        for job in state.jobs
    )


def new_snapshot_job(
    state: ExpertState, pool: ExpertPool, request: Request, attempt: int, config: OperatorConfig
) -> Manifest:
    """Return the manifest of the snapshot Job for a request."""
    expert, base = state.expert, artefact_of_base(state)
    root = root_base(state) if base is None else None
    if root is not None and root.spec.base.store not in config.usable_stores(expert.metadata.namespace):
        root = None  # that Expert says so itself, and nothing descends from it yet
    places = places_read(expert, pool, root)
    held = answering_snapshot(state, request)
    previous = SnapshotRef(path=held.path, digest=held.digest) if held is not None else None
    return build_snapshot_job(
        name=snapshot_job_name(expert.metadata.name, str(request), attempt),
        expert=expert,
        job=snapshot_job(expert, pool, base=base, root=root, previous=previous).model_copy(
            update={"new_pool_scheme": NEWEST}
        ),
        claim=pool.claim,
        sources=source_mounts(places, config),
        object_stores=object_stores(places, config),
        profile=plain_profile(config),
        config=config,
    )


def plain_profile(config: OperatorConfig) -> Profile:
    """Return the hardware profile of Jobs that need no accelerator: ``cpu``, or else the first without a device."""
    plain = [profile for profile in config.profiles.values() if not profile.device]
    return config.profiles.get("cpu") or next(iter(plain), Profile())


def _snapshot_status(
    headline: SnapshotHeadline, *, job: str, request: Request, base: str, now: datetime
) -> SnapshotStatus:
    dropped = dict(sorted(headline.dropped.items(), key=lambda item: (-item[1], item[0]))[:32])
    return SnapshotStatus(
        digest=headline.digest,
        path=headline.path,
        job=job,
        request=str(request),
        base=base,
        documents=headline.documents,
        train_bytes=headline.train_bytes,
        dropped=dropped,
        anchor=headline.anchor,
        newest=headline.newest,
        tasks=list(headline.tasks[:4]),
        unreadable=headline.unreadable,
        time=now.replace(microsecond=0).isoformat(),
    )
