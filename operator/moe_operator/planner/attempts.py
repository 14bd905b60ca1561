"""Finds out which stage work has reached that Jobs attempt: a snapshot, training, evaluation, grading or distillation.

Each attempt is one Job. A lost or failed attempt is followed by another until the work is done, its input turns out to
be wrong, or too many incidents have happened. A pod that was taken away (disruption.py), a full disk and a failing
grader are not the fault of the work, so they are not counted as incidents. The first process of a gang reports for all
processes. A result counts as soon as it is there: nobody waits for pods that only have to end. If a Job succeeded but
left no readable headline, another is made: its command finds the result in the store and reports it again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from moe_formats.job_report import EXIT_INPUT_ERROR, AnyHeadline, Failure
from moe_formats.resources.reasons import Reason
from moe_operator.builders.grade_job import grader_of
from moe_operator.planner.disruption import DEADLINE_EXCEEDED, EVICTED, taken_away
from moe_operator.planner.names import attempt_of
from moe_operator.planner.times import FIRST_RETRY, LAST_RETRY, LOOK_AGAIN, TERMINATION_MESSAGE
from moe_operator.state import ObservedJob, ObservedPod, Role

#: Number of incidents after which work is given up, unless it has a limit of its own.
DEFAULT_LIMIT = 4

#: Number of characters that are quoted from the last output of a container.
QUOTED = 500

#: Reasons of a snapshot whose sources may still be filled: they are read again by themselves, after ``LAST_RETRY``.
AWAITED = frozenset({Reason.DATA_MISSING, Reason.DATA_EMPTY})

#: Reason of a Job's Failed condition if its pod failure policy failed it. Unless a pod was taken away (disruption.py), that
#: is for EXIT_INPUT_ERROR.
POD_FAILURE_POLICY = "PodFailurePolicy"


@dataclass(frozen=True)
class Incident:
    """Why an attempt failed."""

    reason: Reason
    message: str
    #: Whether every further attempt would fail in the same way.
    final: bool = False
    #: Whether it counts towards the number of incidents after which work is given up.
    counts: bool = True


@dataclass(frozen=True)
class Work:
    """The stage that a piece of work has reached, and which attempt comes next.

    ``state`` is one of:

    Wanted    Attempt ``number`` has to be created now.
    Backoff   Attempt ``number`` has to be created in ``wait`` seconds.
    Ending    The pods of the last attempt have not ended yet; the next attempt waits for them.
    Running   ``job`` is running or queued.
    Done      ``headline`` is the result.
    Failed    The work was given up; ``incident`` says why.
    """

    state: Literal["Wanted", "Backoff", "Ending", "Running", "Done", "Failed"]
    number: int
    job: ObservedJob | None = None
    headline: AnyHeadline | None = None
    incident: Incident | None = None
    wait: float | None = None


def assess(
    jobs: Sequence[ObservedJob],
    *,
    expect: type[AnyHeadline],
    now: datetime,
    made: int = 0,
    limit: int = DEFAULT_LIMIT,
    orphans: Sequence[ObservedPod] = (),
) -> Work:
    """Return which stage the work of ``jobs`` has reached.

    ``expect`` is the type of headline that counts as a result. ``made`` is the number of attempts that are known to have
    been made, even if their Jobs are gone. ``orphans`` are pods whose Jobs are gone: no attempt follows while one is alive.
    """
    ordered = sorted(jobs, key=lambda job: attempt_of(job.name))
    done = next((job for job in ordered if isinstance(job.headline, expect)), None)
    if done is not None:
        return Work("Done", attempt_of(done.name), job=done, headline=done.headline)
    following = max([made, *(attempt_of(job.name) for job in ordered)]) + 1
    if not ordered:
        alive = any(is_alive(pod) for pod in orphans)
        return Work("Ending", following, wait=LOOK_AGAIN) if alive else Work("Wanted", following)
    newest = ordered[-1]
    number = attempt_of(newest.name)
    if newest.state in ("Suspended", "Running"):
        return Work("Ending" if newest.deleting else "Running", number, job=newest)
    if _may_still_report(newest, now):
        return Work("Ending", number, job=newest, wait=TERMINATION_MESSAGE.total_seconds())
    return _after_failure(ordered, following, now=now, limit=limit, orphans=orphans)


def incident_of(job: ObservedJob) -> Incident:
    """Return why a finished Job has no result.

    If the cluster took its pod away, or if its pods contradict each other, that is not the fault of the work, which is
    tried again as often as that happens.
    """
    if job.doubt is not None and job.headline is None:
        return Incident(Reason.REPORT_CONTESTED, job.doubt, counts=False)
    hopeless = isinstance(job.headline, Failure) and not job.headline.retryable
    taken = taken_away(job)
    if taken is not None and not hopeless:
        return Incident(Reason.RETRYING, taken, counts=False)
    if job.role is not Role.GRADE and any(
        pod.ended and pod.ended[0] == DEADLINE_EXCEEDED for pod in job.pods
    ):
        return Incident(Reason.DEADLINE_EXCEEDED, _too_long(job), final=True)
    if isinstance(job.headline, Failure):
        reason = known_reason(job.headline.reason)
        return Incident(
            reason,
            _printable(job.headline.message),
            final=not job.headline.retryable and not awaits_data(job),
            counts=reason not in (Reason.DISK_FULL, Reason.GRADER_FAILED) and not awaits_data(job),
        )
    ending = last_words(job)
    if job.state == "Succeeded":
        return Incident(Reason.JOB_FAILED, f"{job.name} succeeded but left no readable report{ending}")
    code = next((pod.exit_code for pod in job.pods if pod.exit_code), None)
    by_rule = job.failure is not None and job.failure[0] == POD_FAILURE_POLICY
    if job.role is Role.GRADE and not by_rule and (failure := _grader_failure(job)) is not None:
        return Incident(Reason.GRADER_FAILED, failure, counts=False)
    final = code == EXIT_INPUT_ERROR or by_rule
    return Incident(Reason.JOB_FAILED, f"{job.name} failed{ending}", final=final)


def awaits_data(job: ObservedJob) -> bool:
    """Return whether a snapshot ended because its sources had no text."""
    empty = isinstance(job.headline, Failure) and job.headline.reason in AWAITED
    return empty and job.role is Role.SNAPSHOT


def last_words(job: ObservedJob) -> str:
    """Return, as the end of a sentence, why a pod of a Job was evicted, or else how its newest finished pod ended."""
    evicted = next((pod.ended for pod in job.pods if pod.ended and pod.ended[0] == EVICTED), None)
    if evicted is not None:
        return (
            f": its pod was evicted ({_printable(evicted[1])}). If that is its limit of ephemeral-storage, raise it in the "
            "hardware profile, in the chart's values"
        )
    finished = [pod for pod in job.pods if pod.exit_code is not None]
    if not finished:
        return f": {job.failure[1]}" if job.failure else ""
    pod = max(finished, key=lambda item: item.created)
    kubelet = _printable(": ".join(pod.ended)) if pod.ended else ""
    why = "; ".join(text for text in (pod.exit_reason, kubelet) if text)
    why = f" ({why})" if why else ""
    output = pod.message.strip()[-QUOTED:]
    return f" with exit code {pod.exit_code}{why}" + (f": {output}" if output else "")


def _too_long(job: ObservedJob) -> str:
    limit = f" of {job.deadline} s" if job.deadline is not None else ""
    return (
        f"{job.name} was stopped because it ran longer than its deadline{limit}. Give it less to do, or raise "
        f"deadlineSeconds.{job.role} in the chart's values"
    )


def _may_still_report(job: ObservedJob, now: datetime) -> bool:
    if job.headline is not None or job.finished is None or taken_away(job) is not None:
        return False
    pod_has_ended = any(pod.exit_code is not None for pod in job.pods)
    return not pod_has_ended and now < job.finished + TERMINATION_MESSAGE


def _after_failure(
    jobs: Sequence[ObservedJob],
    number: int,
    *,
    now: datetime,
    limit: int,
    orphans: Sequence[ObservedPod],
) -> Work:
    newest = jobs[-1]
    incident = incident_of(newest)
    incidents = sum(incident_of(job).counts for job in jobs)
    if incident.final:
        return Work("Failed", attempt_of(newest.name), job=newest, incident=incident)
    # What took away a pod that has not ended may still show. Until then, the incident is not the last one.
    if any(is_alive(pod) for pod in (*newest.pods, *orphans)):
        return Work("Ending", number, job=newest, incident=incident, wait=LOOK_AGAIN)
    if incident.counts and incidents >= limit:
        return Work("Failed", attempt_of(newest.name), job=newest, incident=incident)
    ended = newest.finished or newest.created
    delay = min(FIRST_RETRY * 2 ** min(len(jobs) - 1, 10), LAST_RETRY)
    if awaits_data(newest):
        delay = LAST_RETRY
    wait = (ended + delay - now).total_seconds()
    if wait > 0:
        return Work("Backoff", number, job=newest, incident=incident, wait=wait)
    return Work("Wanted", number, job=newest, incident=incident)


def is_alive(pod: ObservedPod) -> bool:
    """Return whether a pod is running or may still run."""
    return pod.phase in ("Pending", "Running", "Unknown")


def known_reason(reason: str) -> Reason:
    """Return the reason that a Job or a server reported, or JobFailed if the API does not know that reason."""
    try:
        return Reason(reason)
    except ValueError:
        return Reason.JOB_FAILED


def _grader_failure(job: ObservedJob) -> str | None:
    """Return why a grade Job has no result because of its graders; None if a container of the trainer failed instead."""
    pod = max(job.pods, key=lambda item: item.created, default=None)
    if pod is None:
        return f"the pod of {job.name} is gone, and with it the output of its graders"
    name = grader_of(pod.container)
    if name is None and pod.ended is None:
        return None
    who = f"grader {name}" if name is not None else f"the grading in {job.name}"
    return (
        f"{who} {_end(pod)}. None of its verdicts counts, for the model or against it: correct the program in its "
        "image, or its entry under `graders` in the chart's values"
    )


def _end(pod: ObservedPod) -> str:
    if pod.ended is not None:
        reason, message = pod.ended
        what = "was not done in time" if reason == DEADLINE_EXCEEDED else "was stopped"
        return f"{what} ({reason}: {_printable(message)})"
    output = _printable(pod.message)[-QUOTED:]
    return f"ended with exit code {pod.exit_code}" + (f": {output}" if output else "")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()
