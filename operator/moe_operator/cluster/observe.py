"""Reduces live children (Jobs, pods, servers, the gateway) to what the planner sees of them. Pure functions.

They rely on the types that ``sound.py`` sees to, but on no field being there. A pod that cannot be read in spite of that
is left out, and logged once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

from moe_formats.failure import PEER_LOST
from moe_formats.job_report import AnyHeadline, Failure, Progress, parse_headline
from moe_formats.resources import labels
from moe_operator.builders.grade_job import grader_of
from moe_operator.cluster.confine import confined
from moe_operator.cluster.job_pods import JobPods
from moe_operator.cluster.resources import label_of
from moe_operator.state import (
    Manifest,
    ObservedClaim,
    ObservedGateway,
    ObservedJob,
    ObservedPod,
    ObservedServer,
    Role,
)

#: Reasons of a waiting container that only mean that it is starting.
STARTING = frozenset({"ContainerCreating", "PodInitializing"})


#: Stands for a time that an object should have and lacks.
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def observed_job(
    job: Manifest, pods: JobPods, progress: Progress | None, *, expert: str = "", waits: str = ""
) -> ObservedJob:
    """Return a Job with its pods and, once one of those that are believed has finished, what it reported.

    Of how the others ended, nothing is taken over. ``expert`` is the name of the Expert that owns the Job, if one does,
    and ``waits`` what its queue of Kueue says.
    """
    metadata, spec, status = job["metadata"], job.get("spec") or {}, job.get("status") or {}
    believed = {pod["metadata"]["uid"] for pod in pods.believed}
    observed = tuple(pod if pod.uid in believed else _silenced(pod) for pod in _by_age(pods.pods))
    failed = _true_condition(status, "Failed")
    end = failed or _true_condition(status, "Complete")
    return ObservedJob(
        name=metadata["name"],
        uid=metadata["uid"],
        role=Role(label_of(job, labels.ROLE)),
        created=_time(metadata.get("creationTimestamp")) or LONG_AGO,
        suspended=bool(spec.get("suspend")),
        state=job_state(job),
        deleting="deletionTimestamp" in metadata,
        failure=(failed.get("reason", ""), failed.get("message", "")) if failed else None,
        pods=observed,
        headline=_headline(observed),
        doubt=pods.doubt,
        progress=progress,
        expert=expert,
        queue=label_of(job, labels.QUEUE),
        waits=waits,
        started=_time(status.get("startTime")),
        interrupted=_time((_true_condition(status, "Suspended") or {}).get("lastTransitionTime")),
        turns=_turns(metadata, spec),
        finished=_time(end.get("lastTransitionTime")) if end else None,
        width=spec.get("parallelism", 1),
        deadline=((spec.get("template") or {}).get("spec") or {}).get("activeDeadlineSeconds"),
        taken=(metadata.get("annotations") or {}).get(labels.TAKEN, "")
        or _disruption(metadata["name"], failed),
    )


def _turns(metadata: Manifest, spec: Manifest) -> int:
    """Return how often a Job was suspended after it had been started: its generation counts every change of its spec."""
    return int(metadata.get("generation", 1) - (1 if spec.get("suspend") else 2)) // 2


def _disruption(job: str, failed: Mapping[str, Any] | None) -> str:
    """Return that a Job failed because its pod was disrupted, if its condition Failed says so by its pod failure policy."""
    by_rule = failed is not None and failed.get("reason") == "PodFailurePolicy"
    disrupted = failed is not None and "condition DisruptionTarget" in failed.get("message", "")
    return f"{job} was evicted, preempted or lost its node" if by_rule and disrupted else ""


def observed_claim(claim: Manifest) -> ObservedClaim:
    """Return what a claim may be used for. The operator made it for a pool if it has all labels of a pool's store."""
    ours = label_of(claim, labels.MANAGED_BY) == labels.FIELD_MANAGER
    store = ours and label_of(claim, labels.ROLE) == Role.STORE
    return ObservedClaim(
        name=claim["metadata"]["name"],
        phase=(claim.get("status") or {}).get("phase", "Pending"),
        use=label_of(claim, labels.USE),
        made_for=label_of(claim, labels.POOL) if store else "",
    )


def job_state(job: Manifest) -> Literal["Suspended", "Running", "Succeeded", "Failed"]:
    """Return the state of a Job. It has finished only once the Job controller says so in a condition."""
    status = job.get("status") or {}
    if _true_condition(status, "Complete"):
        return "Succeeded"
    if _true_condition(status, "Failed"):
        return "Failed"
    return "Suspended" if (job.get("spec") or {}).get("suspend") else "Running"


def observed_server(deployment: Manifest, pods: Sequence[Manifest], *, service: str = "") -> ObservedServer:
    """Return the Deployment of a revision's servers, with its pods. ``service`` is the uid of their Service."""
    metadata, status = deployment["metadata"], deployment.get("status") or {}
    return ObservedServer(
        name=metadata["name"],
        uid=metadata["uid"],
        desired_replicas=(deployment.get("spec") or {}).get("replicas", 1),
        ready_replicas=status.get("readyReplicas", 0),
        deleting="deletionTimestamp" in metadata,
        pods=_by_age(pods),
        refused=_refused(status),
        service=service,
    )


def observed_gateway(
    deployment: Manifest | None, pods: Sequence[Manifest], reported: Mapping[str, str | None]
) -> ObservedGateway:
    """Return a pool's gateway. ``reported`` has the digest of the policy that each pod uses, by the pod's uid."""
    if deployment is None:
        return ObservedGateway()
    observed = _by_age(pods)
    return ObservedGateway(
        ready_replicas=(deployment.get("status") or {}).get("readyReplicas", 0),
        desired_replicas=(deployment.get("spec") or {}).get("replicas", 1),
        reported={pod.name: reported.get(pod.uid) for pod in observed if pod.ready and not pod.deleting},
        pods=observed,
        refused=_refused(deployment.get("status") or {}),
    )


def observed_pod(pod: Manifest) -> ObservedPod:
    """Return a pod, reduced to what decisions need. The state of one container stands for the whole pod."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    speaker = _speaker(status)
    ended = _ended(speaker)
    return ObservedPod(
        name=metadata["name"],
        uid=metadata["uid"],
        phase=status.get("phase", "Pending"),
        ready=_true_condition(status, "Ready") is not None,
        created=_time(metadata.get("creationTimestamp")) or LONG_AGO,
        deleting="deletionTimestamp" in metadata,
        waiting=_waiting(status, speaker),
        exit_code=ended.get("exitCode"),
        exit_reason=ended.get("reason", ""),
        message=ended.get("message", ""),
        disrupted=_true_condition(status, "DisruptionTarget") is not None,
        lost=_is_lost(status),
        container=speaker.get("name", ""),
        ended=(status["reason"], status.get("message", "")) if status.get("reason") else None,
    )


def _is_lost(status: Manifest) -> bool:
    """Return whether the node of a running pod does not report.

    The node controller then sets the pod's condition Ready to False and leaves all else as it was. A kubelet sets it
    together with ContainersReady, since no pod of ours has readiness gates.
    """
    ready = _true_condition(status, "Ready") is not None
    return (
        status.get("phase") == "Running"
        and not ready
        and _true_condition(status, "ContainersReady") is not None
    )


def observed_pods(pods: Iterable[Manifest]) -> tuple[ObservedPod, ...]:
    """Return pods, without any that cannot be read."""
    observed = []
    for pod in pods:
        with confined(pod, "reading it"):
            observed.append(observed_pod(pod))
    return tuple(observed)


def _silenced(pod: ObservedPod) -> ObservedPod:
    """Return a pod without what it says about how it ended."""
    return replace(pod, exit_code=None, exit_reason="", message="", container="", ended=None)


def _by_age(pods: Sequence[Manifest]) -> tuple[ObservedPod, ...]:
    return tuple(sorted(observed_pods(pods), key=lambda pod: (pod.created, pod.name)))


def _speaker(status: Manifest) -> Manifest:
    """Return the status of the first init container that failed or cannot start, or else that of the first container."""
    for container in status.get("initContainerStatuses") or []:
        state = container.get("state") or {}
        failed = state.get("terminated", {}).get("exitCode", 0) != 0
        if failed or state.get("waiting", {}).get("reason", "PodInitializing") not in STARTING:
            return dict(container)
    return dict(next(iter(status.get("containerStatuses") or []), {}))


def _ended(container: Manifest) -> Mapping[str, Any]:
    """Return how a container ended, now or before its last restart; empty if it never ended."""
    for state in (container.get("state") or {}, container.get("lastState") or {}):
        if "terminated" in state:
            return dict(state["terminated"])
    return {}


def _waiting(status: Manifest, container: Manifest) -> tuple[str, str] | None:
    """Return the reason and the message why a pod is not scheduled or its container cannot start, or None."""
    if status.get("phase") not in (None, "Pending", "Running"):
        return None
    for item in status.get("conditions") or []:
        if item["type"] == "PodScheduled" and item["status"] == "False":
            return item.get("reason", ""), item.get("message", "")
    waiting = (container.get("state") or {}).get("waiting")
    if waiting and waiting.get("reason") not in STARTING:
        return waiting.get("reason", ""), waiting.get("message", "")
    return None


def _headline(pods: Sequence[ObservedPod]) -> AnyHeadline | None:
    """Return what a Job's pods report: a result rather than a failure, then a cause rather than a failure that followed.

    PEER_LOST is such a failure. Among equals, the newest pod counts. None if nothing can be read.
    """
    found = []
    for pod in reversed(pods):
        if grader_of(pod.container) is not None:
            continue  # A grader is not trusted: a headline that it writes is not a report of the trainer.
        headline = _headline_in(pod.message)
        if headline is not None:
            found.append(headline)
    return min(found, key=_rank, default=None)


@lru_cache(maxsize=1024)
def _headline_in(message: str) -> AnyHeadline | None:
    """Return what a termination message says, or None where it is cut off or not ours; every plan reads it again."""
    try:
        return parse_headline(message)
    except ValueError:
        return None


def _rank(headline: AnyHeadline) -> int:
    if not isinstance(headline, Failure):
        return 0
    return 2 if headline.reason == PEER_LOST else 1


def _refused(status: Manifest) -> str:
    """Return why no pods are created for a Deployment, in the words of the API server; empty if they are."""
    return str((_true_condition(status, "ReplicaFailure") or {}).get("message", ""))


def _true_condition(status: Manifest, type_: str) -> Mapping[str, Any] | None:
    conditions = status.get("conditions") or []
    return next((item for item in conditions if item["type"] == type_ and item["status"] == "True"), None)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
