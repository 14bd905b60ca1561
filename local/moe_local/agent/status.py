"""The status that a pod should have in the API server. Pure: takes what is known of its containers, returns a dict."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from moe_local.agent.lifecycle import is_sidecar, policy_of, restarts_after
from moe_local.agent.pod import Container, Pod
from moe_local.agent.state import ContainerState, Decision, Exit, PodState

JSON = dict[str, Any]
NODE_ADDRESS = "127.0.0.1"
ISOLATION, NOT_ISOLATED = "moe-operator.dev/isolation", "moe-operator.dev/not-isolated"
"""Annotations of the Node: how pods are isolated, and what is not isolated here but would be elsewhere, one per line."""
NEVER_RAN = "the container was not running when the pod ended"


def timestamp(seconds: float) -> str:
    """Return seconds since the epoch in the format of the API."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod_status(pod: Pod, state: PodState, decision: Decision, now: float) -> JSON:
    """Return all of the status that this node is responsible for; the merge patch leaves other conditions alone."""
    phase = decision.phase
    status: JSON = {
        "phase": phase,
        "observedGeneration": pod.metadata.generation or None,
        "hostIP": NODE_ADDRESS,
        "hostIPs": [{"ip": NODE_ADDRESS}],
        "startTime": pod.status.get("startTime") or timestamp(state.admitted_at or now),
        "conditions": conditions(pod, state, decision, now),
        "containerStatuses": [_container(pod, c, state, decision) for c in pod.spec.containers],
        "reason": (state.end.reason if state.end else None) or None,
        "message": (state.end.message if state.end else None) or None,
    }
    if state.address:
        status |= {"podIP": state.address, "podIPs": [{"ip": state.address}]}
    if pod.spec.init_containers:
        status["initContainerStatuses"] = [
            _container(pod, c, state, decision) for c in pod.spec.init_containers
        ]
    return status


def _container(pod: Pod, container: Container, state: PodState, decision: Decision) -> JSON:
    current = state.containers[container.name]
    init = container in pod.spec.init_containers
    ended_well = current.exit is not None and current.exit.code == 0
    ready = ended_well if init and not is_sidecar(pod, container) else current.running and current.ready
    latest = current.exit or current.previous
    status: JSON = {
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "restartCount": current.restarts,
        "ready": ready,
        "started": current.running and current.started,
        "state": _state(pod, container, current, decision),
        "lastState": {},
    }
    if latest and latest.container_id and not current.running:
        status["containerID"] = latest.container_id
    elif current.running:
        status["containerID"] = container_id(pod, current)
    before = current.exit if "waiting" in status["state"] and current.exit else current.previous
    if before:
        status["lastState"] = {"terminated": _terminated(before)}
    return status


def container_id(pod: Pod, current: ContainerState) -> str:
    """Return the id of one attempt of a container."""
    return f"moe-local://{pod.uid}/{current.name}/{current.attempt}"


def _state(pod: Pod, container: Container, current: ContainerState, decision: Decision) -> JSON:
    if current.running and current.started_at is not None:
        return {"running": {"startedAt": timestamp(current.started_at)}}
    if current.exit and (decision.final or not restarts_after(policy_of(pod, container), current.exit.code)):
        return {"terminated": _terminated(current.exit)}
    if decision.final:
        return {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": NEVER_RAN}}
    if current.problem:
        return {"waiting": {"reason": current.problem.reason, "message": current.problem.message}}
    if current.exit:
        name, wait = f"{container.name}_{pod.metadata.name}", current.retry_at - current.exit.finished_at
        return {
            "waiting": {
                "reason": "CrashLoopBackOff",
                "message": f"back-off {wait:g}s restarting failed container={name} of {pod.metadata.namespace}",
            }
        }
    waits_for_init = bool(pod.spec.init_containers) and not decision.initialized
    return {"waiting": {"reason": "PodInitializing" if waits_for_init else "ContainerCreating"}}


def _terminated(ended: Exit) -> JSON:
    state: JSON = {
        "exitCode": ended.code,
        "reason": ended.reason,
        "startedAt": timestamp(ended.started_at),
        "finishedAt": timestamp(ended.finished_at),
        "containerID": ended.container_id,
    }
    if ended.signal:
        state["signal"] = ended.signal
    if ended.message:
        state["message"] = ended.message
    return state


def conditions(pod: Pod, state: PodState, decision: Decision, now: float) -> list[JSON]:
    """Return the conditions that this node reports; one that has not changed keeps its lastTransitionTime."""
    mains = [state.containers[c.name] for c in pod.spec.containers]
    lifelong = [state.containers[c.name] for c in pod.spec.init_containers if is_sidecar(pod, c)]
    unready = [c.name for c in mains + lifelong if not (c.running and c.ready)]
    all_ready = not unready and decision.phase == "Running"
    why_not: tuple[str, str] = ("", "")
    if decision.phase == "Succeeded":
        why_not = ("PodCompleted", "")
    elif decision.phase == "Failed":
        why_not = ("PodFailed", "")
    elif not all_ready:
        why_not = ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    incomplete = [c.name for c in pod.spec.init_containers if not _init_done(pod, c, state)]
    not_initialized = (
        "ContainersNotInitialized",
        f"containers with incomplete status: [{' '.join(incomplete)}]",
    )
    completed = ("PodCompleted", "") if decision.phase == "Succeeded" else ("", "")
    wanted = [
        ("PodReadyToStartContainers", state.sandboxed and not decision.final, ("", "")),
        ("Initialized", decision.initialized, completed if decision.initialized else not_initialized),
        ("Ready", all_ready, why_not),
        ("ContainersReady", all_ready, why_not),
        ("PodScheduled", True, ("", "")),
    ]
    if state.end and state.end.disrupted:
        wanted.append(("DisruptionTarget", True, ("TerminationByKubelet", state.end.message)))
    before = {c["type"]: c for c in pod.status.get("conditions") or []}
    return [_condition(before.get(kind, {}), kind, met, why, pod, now) for kind, met, why in wanted]


def condition_value(status: JSON, kind: str) -> str | None:
    """Return the status of one condition; None if there is no condition of that type."""
    found = [str(c["status"]) for c in status.get("conditions") or [] if c["type"] == kind]
    return found[0] if found else None


def _init_done(pod: Pod, container: Container, state: PodState) -> bool:
    current = state.containers[container.name]
    if is_sidecar(pod, container):
        return current.running and current.started
    return current.exit is not None and current.exit.code == 0


def _condition(before: JSON, kind: str, met: bool, why: tuple[str, str], pod: Pod, now: float) -> JSON:
    value = "True" if met else "False"
    same = before.get("status") == value
    condition: JSON = {
        "type": kind,
        "status": value,
        "lastTransitionTime": before.get("lastTransitionTime") if same else timestamp(now),
        "reason": why[0] or None,
        "message": why[1] or None,
        "observedGeneration": pod.metadata.generation or None,
    }
    return condition
