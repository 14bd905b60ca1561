"""Finds out what took a pod of a Job away, and has it noted on the Job, since it decides what the lost attempt means.

An attempt that ends because its pod was evicted, preempted, deleted, lost with its node or rejected by it is no fault of
the work. But the pod that shows this may be gone before anybody looks at the Job that failed with it. So it is kept in two
places that outlive the pod: the Job's condition Failed, by a rule of its pod failure policy (builders/job.py), and an
annotation that the operator writes as soon as it sees the pod being taken away.

If a node is lost, the other pods of a gang end first: they notice within seconds. Only later does the node controller say
that the node does not report, and after minutes that its pods are disrupted.
"""

from collections.abc import Iterable, Iterator

from moe_formats.resources.labels import TAKEN
from moe_operator.state import ObservedJob, ObservedPod

#: Why a kubelet ends a pod that it had started, by the pod's own doing: it ran longer than its activeDeadlineSeconds, or
#: used more disk than its limits.
DEADLINE_EXCEEDED, EVICTED = "DeadlineExceeded", "Evicted"

#: Longest text that is noted, in characters.
LONGEST = 500


def taken_away(job: ObservedJob) -> str | None:
    """Return, as a sentence, what took a pod of a Job away: as it was noted, or as can be seen now. None if nothing did."""
    return job.taken or _seen(job)


def notes(jobs: Iterable[ObservedJob]) -> Iterator[tuple[ObservedJob, dict[str, str]]]:
    """Yield the Jobs on which has to be noted what took their pods away, each with the annotation."""
    for job in jobs:
        seen = _seen(job) if not job.taken and not job.deleting else None
        if seen is not None:
            yield job, {TAKEN: seen[:LONGEST]}


def _seen(job: ObservedJob) -> str | None:
    for pod in job.pods:
        if pod.disrupted:
            return f"{job.name} was evicted, preempted or lost its node" + _said(pod)
        if pod.lost and job.state == "Failed":  # while the Job runs, the node may come back with the pod
            return f"{job.name} lost the node of its pod {pod.name}, which does not report"
        if _is_rejected(pod):
            return f"the node of {job.name} rejected its pod{_said(pod)}"
    # Once a pod has failed by itself, the Job controller deletes the others of its gang.
    if job.state != "Running" or job.deleting or any(_failed_by_itself(pod) for pod in job.pods):
        return None
    deleted = next((pod for pod in job.pods if pod.deleting and pod.phase != "Succeeded"), None)
    return f"pod {deleted.name} of {job.name} was deleted by somebody" if deleted is not None else None


def _is_rejected(pod: ObservedPod) -> bool:
    """Return whether a kubelet refused to start a pod that was scheduled to its node: no container of it ever ran."""
    own_doing = pod.ended is not None and pod.ended[0] in (DEADLINE_EXCEEDED, EVICTED)
    return pod.phase == "Failed" and pod.exit_code is None and pod.ended is not None and not own_doing


def _failed_by_itself(pod: ObservedPod) -> bool:
    return pod.phase == "Failed" and not pod.deleting


def _said(pod: ObservedPod) -> str:
    if pod.ended is None:
        return ""
    reason, message = pod.ended
    return f" ({reason}: {message})" if message else f" ({reason})"
