"""Finds out why no pod of a Job or a Deployment runs: by its cause, in the words of the scheduler and the kubelet.

If nobody says why, that is told after ``PATIENCE``, with the command that shows where it hangs.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from moe_formats.job_report import Failure, parse_headline
from moe_formats.resources.reasons import Reason
from moe_operator.planner.conditions import Why
from moe_operator.planner.times import PATIENCE
from moe_operator.state import ObservedJob, ObservedPod

#: Reasons of Jobs whose pods do not run. They may last forever, so nothing else waits for such a Job.
STUCK = frozenset(
    {
        Reason.WAITING_FOR_CAPACITY,
        Reason.WAITING_FOR_STORAGE,
        Reason.IMAGE_UNAVAILABLE,
        Reason.POD_NOT_CREATED,
        Reason.POD_NOT_STARTED,
    }
)

#: Reasons of a waiting container whose image cannot be pulled.
_IMAGE = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)


def runs(pods: Sequence[ObservedPod]) -> bool:
    """Return whether a container of one of the pods runs."""
    return any(pod.ready or (pod.phase == "Running" and pod.waiting is None) for pod in _living(pods))


def waits_for_queue(job: ObservedJob) -> str:
    """Return, as the end of a sentence, that a Job waits for its queue of Kueue, and why or where to look."""
    if job.waits:
        return f"waits for queue {job.queue}: {job.waits}"
    return (
        f"waits for queue {job.queue}: `kubectl describe workload` of Job {job.name} says what it waits for"
    )


def stuck_job(job: ObservedJob, now: datetime) -> Why | None:
    """Return why no pod of a Job that was started runs; None if one does or has ended, or if it may still be starting."""
    if job.state != "Running":
        return None
    if not job.pods:
        return _not_created(job.name) if job.started is not None and now >= job.started + PATIENCE else None
    return blocked(job.pods, now)


def blocked(pods: Sequence[ObservedPod], now: datetime) -> Why | None:
    """Return why none of the pods runs; None if one does, if there is none, or if it may still be starting."""
    living = _living(pods)
    if not living or runs(pods):
        return None
    told = [pod for pod in living if pod.waiting is not None]
    if told:
        return _told(max(told, key=lambda item: item.created))
    pod = max(living, key=lambda item: item.created)
    return _not_started(pod) if _is_due(pod, now) else None


def why_none_is_ready(refused: str, pods: Sequence[ObservedPod], now: datetime) -> str:
    """Return, as the end of a sentence, why no pod of a Deployment gets ready; empty if nothing is known to hinder it.

    ``refused`` is why the cluster creates no pods for it.
    """
    why = blocked(pods, now)
    if why is not None:
        return f"; {why.message}"
    return f"; its pods are not created: {refused}" if refused and not _living(pods) else ""


def next_look(job: ObservedJob | None, pods: Sequence[ObservedPod], now: datetime) -> float | None:
    """Return in how many seconds it has to be said that no pod runs, or None. ``job`` is the Job of the pods, if it is one."""
    if job is not None and not pods:
        since = job.started if job.state == "Running" else None
    else:
        quiet = [pod.created for pod in _living(pods) if pod.waiting is None]
        since = None if runs(pods) else max(quiet, default=None)
    left = since + PATIENCE - now if since is not None else timedelta(0)
    return left.total_seconds() if left > timedelta(0) else None


def server_failure(pods: Sequence[ObservedPod]) -> Failure | None:
    """Return why servers cannot load their weights: what one reported before it ended. None if one of them is ready."""
    if any(pod.ready for pod in pods):
        return None
    for pod in sorted(pods, key=lambda item: item.created, reverse=True):
        try:
            headline = parse_headline(pod.message)
        except ValueError:
            continue
        if isinstance(headline, Failure) and not headline.retryable:
            return headline
    return None


def _living(pods: Sequence[ObservedPod]) -> list[ObservedPod]:
    return [pod for pod in pods if pod.phase in ("Pending", "Running", "Unknown") and not pod.deleting]


def _is_due(pod: ObservedPod, now: datetime) -> bool:
    return pod.phase == "Pending" and now >= pod.created + PATIENCE


def _told(pod: ObservedPod) -> Why:
    reason, message = pod.waiting or ("", "")
    words = f"pod {pod.name}: {reason}" + (f": {message}" if message else "")
    if reason == "Unschedulable":
        # The scheduler also says so of a pod whose claim is missing or not bound.
        claim = "persistentvolumeclaim" in message.lower()
        return Why(Reason.WAITING_FOR_STORAGE if claim else Reason.WAITING_FOR_CAPACITY, words)
    return Why(Reason.IMAGE_UNAVAILABLE if reason in _IMAGE else Reason.POD_NOT_STARTED, words)


def _not_created(job: str) -> Why:
    return Why(
        Reason.POD_NOT_CREATED,
        f"the cluster creates no pod for Job {job}. Often a ResourceQuota, a LimitRange or an admission policy of the "
        f"namespace refuses it: `kubectl describe job {job}` shows what was said",
    )


def _not_started(pod: ObservedPod) -> Why:
    return Why(
        Reason.POD_NOT_STARTED,
        f"pod {pod.name} has not started within {PATIENCE.total_seconds():.0f} s, and nobody has said why. Its node may still "
        f"pull the image, or cannot mount a volume: `kubectl describe pod {pod.name}` shows what it waits for",
    )
