"""What a kubelet and a scheduler write into the status of a pod."""

from typing import Any

from moe_operator.state import Manifest
from world.trainer import Ending


def unschedulable(message: str = "0/1 nodes are available") -> dict[str, Any]:
    """Return the status of a pod that no node has room for."""
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    }
    return {"phase": "Pending", "conditions": [condition]}


def running(pod: Manifest, *, ready: bool) -> dict[str, Any]:
    """Return the status of a pod whose container runs."""
    container = {"name": _containers(pod)[0], "ready": ready, "state": {"running": {}}}
    return {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [_condition("PodScheduled", True), _condition("Ready", ready)],
        "containerStatuses": [container],
    }


def ended(pod: Manifest, ending: Ending) -> dict[str, Any]:
    """Return the status of a pod whose container has ended."""
    terminated = {
        "exitCode": ending.exit_code,
        "reason": "Completed" if ending.exit_code == 0 else "Error",
        "message": ending.message,
    }
    statuses: dict[str, Any] = {"containerStatuses": [_terminated(_containers(pod)[0], terminated)]}
    if ending.by_grader:
        handout, *graders = _containers(pod, "initContainers")
        statuses = {
            "initContainerStatuses": [
                _terminated(handout, {"exitCode": 0, "reason": "Completed"}),
                _terminated(graders[0], terminated),
            ],
            "containerStatuses": [
                {"name": _containers(pod)[0], "state": {"waiting": {"reason": "PodInitializing"}}}
            ],
        }
    disrupted = [_condition("DisruptionTarget", True)] if ending.disrupted else []
    return {
        "phase": "Succeeded" if ending.exit_code == 0 else "Failed",
        "conditions": [_condition("PodScheduled", True), _condition("Ready", False), *disrupted],
        **statuses,
    }


def waiting(pod: Manifest, reason: str, message: str) -> dict[str, Any]:
    """Return the status of a pod that was scheduled, and whose container its node has not started."""
    container = {
        "name": _containers(pod)[0],
        "ready": False,
        "state": {"waiting": {"reason": reason, "message": message}},
    }
    return {
        "phase": "Pending",
        "conditions": [_condition("PodScheduled", True), _condition("Ready", False)],
        "containerStatuses": [container],
    }


def rejected() -> dict[str, Any]:
    """Return the status of a pod that its node refuses to start, as a kubelet does that has no device left."""
    message = "Pod was rejected: Allocate failed due to no healthy devices present"
    return {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": message}


def too_late(pod: Manifest) -> dict[str, Any]:
    """Return the status of a pod that ran longer than its activeDeadlineSeconds; its container was killed."""
    killed = {"exitCode": 137, "reason": "Error", "message": ""}
    return {
        "phase": "Failed",
        "reason": "DeadlineExceeded",
        "message": "Pod was active on the node longer than the specified deadline",
        "conditions": [_condition("PodScheduled", True), _condition("Ready", False)],
        "containerStatuses": [_terminated(_containers(pod)[0], killed)],
    }


def _containers(pod: Manifest, field: str = "containers") -> list[str]:
    return [container["name"] for container in pod["spec"][field]]


def _terminated(name: str, how: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "ready": False, "state": {"terminated": how}}


def _condition(type_: str, holds: bool) -> dict[str, Any]:
    return {"type": type_, "status": "True" if holds else "False"}
