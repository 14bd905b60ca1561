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
    """Return the recorded snapshot if it has the digest that is asked for, whatever its refresh slot, or None."""
    held = state.expert.status.snapshot
    return held if held is not None and Request.parse(held.request).digest == asked.digest else None


def decide_data(state: ExpertState, asked: Request, *, busy: bool, now: datetime) -> DataDecision:
    """Return the newest snapshot and which stage the next one has reached.

    ``busy`` says whether a revision is being made, which postpones a refresh.
    """
    expert, held = state.expert, state.expert.status.snapshot
    same_question = answering_snapshot(state, asked) is not None
    request, reading, work = _reading(state, asked, now)
    due = reading is not None and (is_due(expert, reading, now) or _has_other_gates(expert, reading, work))
    has_it = held is not None and request is not None and held.request == str(request)
    if held is not None and same_question and (busy or (has_it and not due)):
        return DataDecision(
            taken(expert, held),
            held,
            answers=True,
            wait=_until_due(expert, reading, now),
            refresh=_recorded(expert, reading),
        )
    if request is None or work is None or (due and (has_it or work.state == "Failed")):
        request = next_request(state.jobs, expert, asked)
        work = assess(jobs_of_request(state.jobs, expert, request), expect=SnapshotHeadline, now=now)
    if reading is None or reading.request != str(request):
        asks = RefreshStatus(request=str(request), gates=gates_digest(expert), admitted=_admitted(expert))
        if reading is not None:
            asks = asks.model_copy(update={"job": reading.job, "last": reading.last})
        reading = noted(asks, work.job, now)
    recorded, until_due = _recorded(expert, reading), _until_due(expert, reading, now)
    if work.state == "Done" and isinstance(work.headline, SnapshotHeadline) and work.job is not None:
        snapshot = _snapshot_status(
            work.headline, job=work.job.name, request=request, base=str(expert.spec.base), now=now
        )
        grown = admitted_with(_admitted(expert), held, snapshot, now)
        return DataDecision(
            taken(expert, snapshot),
            snapshot,
            answers=same_question,
            wait=until_due,
            refresh=recorded.model_copy(update={"admitted": grown}) if recorded is not None else None,
            fresh=True,
        )
    if work.state == "Wanted" and _reads_for_another(state, jobs_of_request(state.jobs, expert, request)):
        work = replace(work, state="Ending", wait=LOOK_AGAIN)
    waits = [work.wait if work.wait is not None else _next_look(work, now)]
    waits.append(until_due if work.state == "Failed" else None)
    return DataDecision(
        pending(state, work, recorded.next if recorded is not None else None, now),
        held,
        answers=same_question,
        wait=min((wait for wait in waits if wait is not None), default=None),
        request=request,
        work=work,
        refresh=recorded,
    )


def _reading(
    state: ExpertState, asked: Request, now: datetime
) -> tuple[Request | None, RefreshStatus | None, Work | None]:
    """Return the newest reading for what is asked, with its request and the stage that its Jobs have reached, or Nones."""
    reading = newest_reading(state.expert, asked)
    if reading is None:
        return None, None, None
    request = Request.parse(reading.request)
    work = assess(jobs_of_request(state.jobs, state.expert, request), expect=SnapshotHeadline, now=now)
    return request, noted(reading, work.job, now), work


def _admitted(expert: Expert) -> list[Admitted]:
    return expert.status.refresh.admitted if expert.status.refresh is not None else []


def _has_other_gates(expert: Expert, reading: RefreshStatus, work: Work | None) -> bool:
    """Return whether the delivery was refused by other limits than those that the spec has now."""
    refused = (
        work is not None and work.incident is not None and work.incident.reason is Reason.DELIVERY_REFUSED
    )
    return refused and reading.gates != gates_digest(expert)


def _until_due(expert: Expert, reading: RefreshStatus | None, now: datetime) -> float | None:
    """Return the seconds until the sources are due again; None if they never are, or are due already and wait."""
    due = due_after(expert, reading) if reading is not None else None
    return (due - now).total_seconds() if due is not None and due > now else None


def _recorded(expert: Expert, reading: RefreshStatus | None) -> RefreshStatus | None:
    """Return a reading for the status, with its next due time."""
    if reading is None:
        return expert.status.refresh
    due, held = due_after(expert, reading), expert.status.snapshot
    if due is None and expert.status.refresh is None and held is not None and reading.request == held.request:
        return None  # nothing is gained by writing down what the snapshot says
    return reading.model_copy(update={"next": due})


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
