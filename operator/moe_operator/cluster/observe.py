"""Reduces live children (Jobs, pods, servers, the gateway) to what the planner sees of them. Pure functions."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from moe_formats.failure import PEER_LOST
from moe_formats.job_report import Failure, Progress, parse_headline
from moe_formats.resources import labels
from moe_operator.builders.grade_job import grader_of
from moe_operator.cluster.resources import label_of
from moe_operator.state import (
    AnyHeadline,
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


def observed_job(job: Manifest, pods: Sequence[Manifest], progress: Progress | None) -> ObservedJob:
    """Return a Job with its pods and, once one of them has finished, what it reported."""
    metadata, status = job["metadata"], job.get("status") or {}
    observed = _by_age(pods)
    failed = _true_condition(status, "Failed")
    end = failed or _true_condition(status, "Complete")
    return ObservedJob(
        name=metadata["name"],
        uid=metadata["uid"],
        role=Role(label_of(job, labels.ROLE)),
        revision=label_of(job, labels.REVISION) or None,
        created=_time(metadata["creationTimestamp"]),
        suspended=bool(job["spec"].get("suspend")),
        state=job_state(job),
        deleting="deletionTimestamp" in metadata,
        failure=(failed.get("reason", ""), failed.get("message", "")) if failed else None,
        pods=observed,
        headline=_headline(observed),
        progress=progress,
        expert=label_of(job, labels.EXPERT),
        finished=_time(end["lastTransitionTime"]) if end and end.get("lastTransitionTime") else None,
        width=job["spec"].get("parallelism", 1),
        deadline=job["spec"].get("template", {}).get("spec", {}).get("activeDeadlineSeconds"),
    )


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
    return "Suspended" if job["spec"].get("suspend") else "Running"


def observed_server(deployment: Manifest, pods: Sequence[Manifest], *, service: str = "") -> ObservedServer:
    """Return the Deployment of a revision's servers, with its pods. ``service`` is the uid of their Service."""
    metadata, spec, status = deployment["metadata"], deployment["spec"], deployment.get("status") or {}
    return ObservedServer(
        name=metadata["name"],
        uid=metadata["uid"],
        desired_replicas=spec.get("replicas", 1),
        ready_replicas=status.get("readyReplicas", 0),
        deleting="deletionTimestamp" in metadata,
        pods=_by_age(pods),
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
        desired_replicas=deployment["spec"].get("replicas", 1),
        reported={pod.name: reported.get(pod.uid) for pod in observed if pod.ready and not pod.deleting},
        pods=observed,
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
        created=_time(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
        waiting=_waiting(status, speaker),
        exit_code=ended.get("exitCode"),
        exit_reason=ended.get("reason", ""),
        message=ended.get("message", ""),
        disrupted=_true_condition(status, "DisruptionTarget") is not None,
        container=speaker.get("name", ""),
        ended=(status["reason"], status.get("message", "")) if status.get("reason") else None,
    )


def environment_of(template: Manifest) -> dict[str, str]:
    """Return the environment variables with literal values of a pod template's first container."""
    variables = template["spec"]["containers"][0].get("env") or []
    return {item["name"]: item["value"] for item in variables if "value" in item}


def _by_age(pods: Sequence[Manifest]) -> tuple[ObservedPod, ...]:
    observed = [observed_pod(pod) for pod in pods]
    return tuple(sorted(observed, key=lambda pod: (pod.created, pod.name)))


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


def _true_condition(status: Manifest, type_: str) -> Mapping[str, Any] | None:
    conditions = status.get("conditions") or []
    return next((item for item in conditions if item["type"] == type_ and item["status"] == "True"), None)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
