"""Decides about the data of an Expert: whether to take a snapshot, which stage it has reached, and what the newest contains.

A request identifies what a snapshot is asked for. It has two parts: a digest of the Expert's uid, spec.data without
refresh, spec.runID, the evaluators whose items are frozen, and an imported base; and the refresh slot, which is the
number of whole refresh periods since the Expert was created. When the digest changes, a snapshot is taken at once. When
only the slot changes, it is taken only while no revision is being made: otherwise a training that takes longer than a
refresh period would never be finished.

Another base Expert or preset has another tokenizer, with which the held-out text has to be tried. So it enters the digest
as well, but only if the newest snapshot was asked for with another base: the requests of Experts that keep their base
have the digests that they always had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from moe_formats.data_scheme import NEWEST
from moe_formats.format import canonical_json, digest_of
from moe_formats.job_report import SnapshotHeadline
from moe_formats.resources.conditions import Condition, ConditionType, condition, find_condition
from moe_formats.resources.evaluator import Evaluator
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_status import SnapshotStatus
from moe_formats.resources.reasons import Reason
from moe_operator.builders.snapshot_job import build_snapshot_job
from moe_operator.config import OperatorConfig, Profile
from moe_operator.planner.attempts import AWAITED, Work, assess
from moe_operator.planner.base import artefact_of_base, root_base
from moe_operator.planner.blockage import STUCK, next_look, runs, stuck_job, waits_for_queue
from moe_operator.planner.job_configs import object_stores, places_read, snapshot_job, source_mounts
from moe_operator.planner.names import is_attempt, snapshot_job_name
from moe_operator.planner.times import LAST_RETRY, LOOK_AGAIN
from moe_operator.state import ExpertState, Manifest, ObservedJob, Role

#: Seconds between two readings of the sources.
REFRESH_SECONDS = {"hourly": 3600, "daily": 86_400, "weekly": 604_800}

#: How many refresh slots back an unfinished snapshot is looked for.
_SLOTS_BACK = 8


@dataclass(frozen=True)
class Request:
    """What a snapshot is asked for. Its text is recorded in the status, and the Job's name is derived from it."""

    digest: str
    slot: int

    def __str__(self) -> str:
        return f"{self.digest}-{self.slot}"

    @classmethod
    def parse(cls, text: str) -> "Request":
        """Return the request that a text stands for. A text that cannot be read gives a request that equals no other."""
        digest, _, slot = text.rpartition("-")
        return cls(digest, int(slot)) if slot.isdigit() else cls(text, 0)


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
    #: Whether this pass records a new snapshot in the status. The next pass decides what follows from it.
    fresh: bool = False


def request_of(expert: Expert, *, now: datetime, evaluators: Sequence[Evaluator] = ()) -> Request:
    """Return what the spec asks for now. The snapshot also freezes the items of ``evaluators``."""
    asked: dict[str, object] = {
        "uid": expert.metadata.uid,
        "data": expert.spec.data.model_dump(mode="json", exclude={"refresh"}, exclude_defaults=True),
        "runID": expert.spec.run_id,
    }
    if evaluators:
        asked["evaluators"] = [_frozen(item) for item in evaluators]
    base = {"base": expert.spec.base.model_dump(mode="json", exclude_none=True)}
    plain, with_base = _digest(asked), _digest(asked | base)
    named = expert.spec.base.store is not None or _tried_with_another_base(expert, plain, with_base)
    return Request(with_base if named else plain, _slot(expert, now)[0])


def _tried_with_another_base(expert: Expert, plain: str, with_base: str) -> bool:
    """Return whether the newest snapshot answers all but the spec's base, or was asked for because that had changed.

    ``plain`` and ``with_base`` are the digests of what the spec asks for now, without and with its base.
    """
    held = expert.status.snapshot
    if held is None or held.base is None:
        return False
    answered = Request.parse(held.request).digest
    return answered == with_base or (answered == plain and held.base != str(expert.spec.base))


def _digest(asked: Mapping[str, object]) -> str:
    return digest_of(canonical_json(dict(asked))).removeprefix("sha256:")[:16]


def _frozen(evaluator: Evaluator) -> dict[str, object]:
    """Return the fields of an evaluator that its frozen items depend on: all but the grader."""
    return evaluator.model_dump(mode="json", exclude={"grader"}, exclude_defaults=True)


def answering_snapshot(state: ExpertState, asked: Request) -> SnapshotStatus | None:
    """Return the recorded snapshot if it has the digest that is asked for, whatever its refresh slot, or None."""
    held = state.expert.status.snapshot
    return held if held is not None and Request.parse(held.request).digest == asked.digest else None


def decide_data(state: ExpertState, asked: Request, *, busy: bool, now: datetime) -> DataDecision:
    """Return the newest snapshot and which stage the next one has reached.

    ``busy`` says whether a revision is being made, which postpones a refresh.
    """
    expert = state.expert
    held = expert.status.snapshot
    last = Request.parse(held.request) if held else None
    _, until_next = _slot(expert, now)
    same_question = last is not None and last.digest == asked.digest
    if held is not None and last is not None and same_question and (asked.slot <= last.slot or busy):
        return DataDecision(_taken(expert, held), held, answers=True, wait=until_next)
    asked = _under_way(state, asked, last)
    jobs = jobs_of_request(state.jobs, expert, asked)
    work = assess(jobs, expect=SnapshotHeadline, now=now)
    if work.state == "Done" and isinstance(work.headline, SnapshotHeadline) and work.job is not None:
        taken = _snapshot_status(
            work.headline, job=work.job.name, request=asked, base=str(expert.spec.base), now=now
        )
        return DataDecision(_taken(expert, taken), taken, answers=same_question, wait=until_next, fresh=True)
    if work.state == "Wanted" and _reads_for_another(state, jobs):
        work = replace(work, state="Ending", wait=LOOK_AGAIN)
    return DataDecision(
        _pending(state, work, now),
        held,
        answers=same_question,
        wait=work.wait if work.wait is not None else _next_look(work, now),
        request=asked,
        work=work,
    )


def _next_look(work: Work, now: datetime) -> float | None:
    return next_look(work.job, work.job.pods, now) if work.job is not None else None


def jobs_of_request(jobs: Sequence[ObservedJob], expert: Expert, request: Request) -> list[ObservedJob]:
    """Return the Jobs that were created for a request."""
    first = snapshot_job_name(expert.metadata.name, str(request), 1)
    return [job for job in jobs if job.role is Role.SNAPSHOT and is_attempt(job.name, first)]


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
    return build_snapshot_job(
        name=snapshot_job_name(expert.metadata.name, str(request), attempt),
        expert=expert,
        job=snapshot_job(expert, pool, base=base, root=root).model_copy(update={"new_pool_scheme": NEWEST}),
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


def _under_way(state: ExpertState, asked: Request, last: Request | None) -> Request:
    """Return the request that a Job already works for if only its slot is older, otherwise ``asked``.

    Reading the sources may take longer than a refresh period.
    """
    since = last.slot + 1 if last is not None and last.digest == asked.digest else 0
    for slot in range(asked.slot, max(since, asked.slot - _SLOTS_BACK) - 1, -1):
        request = Request(asked.digest, slot)
        if any(job.state != "Failed" for job in jobs_of_request(state.jobs, state.expert, request)):
            return request
    return asked


def _slot(expert: Expert, now: datetime) -> tuple[int, float | None]:
    """Return the number of the refresh period that ``now`` is in, and the seconds until the next one begins."""
    period = REFRESH_SECONDS.get(expert.spec.data.refresh)
    created = expert.metadata.creation_timestamp
    if period is None or created is None:
        return 0, None
    age = max((now - created).total_seconds(), 0.0)
    slot = int(age // period)
    return slot, (slot + 1) * period - age


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


def _taken(expert: Expert, snapshot: SnapshotStatus) -> Condition:
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


def _pending(state: ExpertState, work: Work, now: datetime) -> Condition:
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
        message = f"{work.incident.message.rstrip(' .')}. Correct the data or the spec, then change spec.runID to read it again"
        return _say(expert, False, work.incident.reason, message)
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


def _same_spec(expert: Expert, before: Condition) -> bool:
    return before.observed_generation == expert.metadata.generation


def _say(expert: Expert, status: bool, reason: Reason, message: str) -> Condition:
    return condition(ConditionType.DATA_READY, status, reason, message, generation=expert.metadata.generation)
