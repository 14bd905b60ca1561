"""Decides which reading of an Expert's sources is asked for: the one of the newest snapshot, the next one, or another.

A request identifies a reading. It has two parts: a digest of the Expert's uid, spec.data without schedule and gates,
spec.runID, the evaluators whose items are frozen, and an imported base; and a number, which counts the readings. When
the digest changes, the sources are read at once. Otherwise they are read again once a due time (schedule.py) has passed
since the newest reading began. However many have passed, one reading makes up for them, and it waits while a revision
is being made: otherwise a training that takes longer than a refresh period would never be finished.

What is due is compared with the time that the operator noted when it saw the reading begin (``status.refresh``), both on
the operator's own clock. So a clock that is an hour fast for a while neither repeats a reading nor leaves one out.

Another base Expert or preset has another tokenizer, with which the held-out text has to be tried. So it enters the digest
as well, but only if the newest snapshot was asked for with another base: the requests of Experts that keep their base
have the digests that they always had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from moe_formats.format import canonical_json, digest_of
from moe_formats.resources.evaluator import Evaluator
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_status import RefreshStatus
from moe_operator.planner.names import is_attempt, snapshot_job_name
from moe_operator.planner.schedule import PERIODS, next_due
from moe_operator.state import ObservedJob, Role

#: How many readings back an unfinished one is looked for if the status names none.
_BACK = 8


@dataclass(frozen=True)
class Request:
    """What the sources are read for. Its text is recorded in the status, and the Job's name is derived from it."""

    digest: str
    number: int

    def __str__(self) -> str:
        return f"{self.digest}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> "Request":
        """Return the request that a text stands for. A text that cannot be read gives a request that equals no other."""
        digest, _, number = text.rpartition("-")
        return cls(digest, int(number)) if number.isdigit() else cls(text, 0)


def request_of(expert: Expert, *, now: datetime, evaluators: Sequence[Evaluator] = ()) -> Request:
    """Return what the spec asks for now, as if nothing had been read. A snapshot also freezes the items of ``evaluators``."""
    asked: dict[str, object] = {
        "uid": expert.metadata.uid,
        "data": expert.spec.data.model_dump(
            mode="json", exclude={"refresh", "refresh_schedule", "gates"}, exclude_defaults=True
        ),
        "runID": expert.spec.run_id,
    }
    if evaluators:
        asked["evaluators"] = [_frozen(item) for item in evaluators]
    base = {"base": expert.spec.base.model_dump(mode="json", exclude_none=True)}
    plain, with_base = _digest(asked), _digest(asked | base)
    named = expert.spec.base.store is not None or _tried_with_another_base(expert, plain, with_base)
    return Request(with_base if named else plain, _periods(expert, now))


def newest_reading(expert: Expert, asked: Request) -> RefreshStatus | None:
    """Return the newest reading for what is asked; None if there is none.

    A status of before there was ``status.refresh`` has the snapshot only, whose number counts periods since the creation.
    """
    recorded, held = expert.status.refresh, expert.status.snapshot
    if recorded is not None and Request.parse(recorded.request).digest == asked.digest:
        return recorded
    if held is None or (request := Request.parse(held.request)).digest != asked.digest:
        return None
    created, period = expert.metadata.creation_timestamp, PERIODS.get(expert.spec.data.refresh)
    began = datetime.fromisoformat(held.time)
    if created is not None and period is not None and request.number <= (began - created) // period:
        began = created + request.number * period
    admitted = recorded.admitted if recorded is not None else []
    return RefreshStatus(request=held.request, job=held.job, last=began, admitted=admitted)


def next_request(jobs: Sequence[ObservedJob], expert: Expert, asked: Request) -> Request:
    """Return the request for the reading that follows the newest one, or for the first one.

    Before ``status.refresh`` is written, numbers count periods since the creation, and a Job may work for one already.
    """
    recorded, held = expert.status.refresh, expert.status.snapshot
    if recorded is not None:
        before = Request.parse(recorded.request)
        return Request(asked.digest, before.number + (before.digest == asked.digest))
    before = Request.parse(held.request) if held is not None else Request("", 0)
    least = before.number + 1 if before.digest == asked.digest else 0
    newest = max(asked.number, least)
    for number in range(newest, max(newest - _BACK, least - 1), -1):
        request = Request(asked.digest, number)
        if any(job.state != "Failed" for job in jobs_of_request(jobs, expert, request)):
            return request
    return Request(asked.digest, newest)


def gates_digest(expert: Expert) -> str | None:
    """Return the identity of the limits that a delivery has to keep; None if there are none."""
    gates = expert.spec.data.gates
    return gates.content_digest() if gates is not None else None


def is_due(expert: Expert, reading: RefreshStatus, now: datetime) -> bool:
    """Return whether the sources are due to be read again after a reading.

    A reading that seems to begin more than a whole period from now was noted while the clock was fast. It does not count.
    """
    due = due_after(expert, reading)
    if due is None or reading.last is None:
        return False
    if now >= due:
        return True
    coming = _due(expert, now)
    later = _due(expert, coming) if coming is not None else None
    return later is not None and reading.last > later


def due_after(expert: Expert, reading: RefreshStatus) -> datetime | None:
    """Return when the sources are due after a reading; None if never, or if it has not begun."""
    return _due(expert, reading.last) if reading.last is not None else None


def noted(reading: RefreshStatus, job: ObservedJob | None, now: datetime) -> RefreshStatus:
    """Return a reading with the time at which its newest Job was first seen to have begun."""
    if (
        job is None
        or job.name == reading.job
        or (job.started is None and job.state in ("Suspended", "Running"))
    ):
        return reading
    return reading.model_copy(update={"job": job.name, "last": now.replace(microsecond=0)})


def jobs_of_request(jobs: Sequence[ObservedJob], expert: Expert, request: Request) -> list[ObservedJob]:
    """Return the Jobs that were created for a request."""
    first = snapshot_job_name(expert.metadata.name, str(request), 1)
    return [job for job in jobs if job.role is Role.SNAPSHOT and is_attempt(job.name, first)]


def _due(expert: Expert, after: datetime) -> datetime | None:
    return next_due(expert.spec.data, expert.metadata.creation_timestamp, after)


def _periods(expert: Expert, now: datetime) -> int:
    """Return the number of whole refresh periods since the Expert was created; 0 if its schedule has no period."""
    period, created = PERIODS.get(expert.spec.data.refresh), expert.metadata.creation_timestamp
    return max(int((now - created) // period), 0) if period is not None and created is not None else 0


def _frozen(evaluator: Evaluator) -> dict[str, object]:
    """Return the fields of an evaluator that its frozen items depend on: all but the grader."""
    return evaluator.model_dump(mode="json", exclude={"grader"}, exclude_defaults=True)


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
