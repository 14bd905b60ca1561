"""Finds out why the pods of a Job or a server do not run, in the words of the scheduler and the kubelet."""

from collections.abc import Sequence

from moe_formats.job_report import Failure, parse_headline
from moe_operator.state import ObservedPod


def blocked(pods: Sequence[ObservedPod]) -> str | None:
    """Return why none of the pods runs; None if one does, or if no reason is known."""
    living = [pod for pod in pods if pod.phase in ("Pending", "Running", "Unknown") and not pod.deleting]
    stuck = [pod for pod in living if pod.waiting is not None]
    if not stuck or any(pod.ready or (pod.phase == "Running" and pod.waiting is None) for pod in living):
        return None
    pod = max(stuck, key=lambda item: item.created)
    reason, message = pod.waiting or ("", "")
    return f"pod {pod.name}: {reason}" + (f": {message}" if message else "")


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
