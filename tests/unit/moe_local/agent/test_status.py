from __future__ import annotations

from typing import Any

from moe_local.agent.lifecycle import decide
from moe_local.agent.pod import Pod
from moe_local.agent.state import ContainerState, End, Exit, PodState, Problem
from moe_local.agent.status import pod_status, timestamp

NOW = 1_800_000_000.0


def status_of(pod: Pod, state: PodState) -> dict[str, Any]:
    return pod_status(pod, state, decide(pod, state, NOW), NOW)


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(c for c in status["conditions"] if c["type"] == kind)


def one(pod: Pod, state: ContainerState) -> PodState:
    return PodState({"main": state}, address="127.77.0.2", sandboxed=True, admitted_at=NOW - 9)


def test_a_ready_pod(make_pod: Any) -> None:
    pod = make_pod(metadata={"generation": 3})
    state = ContainerState("main", attempt=1, started_at=NOW - 5, started=True, ready=True)
    status = status_of(pod, one(pod, state))
    assert (status["phase"], status["podIP"], status["observedGeneration"]) == ("Running", "127.77.0.2", 3)
    assert condition(status, "Ready")["status"] == "True"
    assert status["containerStatuses"][0]["state"] == {"running": {"startedAt": timestamp(NOW - 5)}}
    assert status["containerStatuses"][0]["restartCount"] == 0


def test_a_transition_time_changes_only_with_its_condition(make_pod: Any) -> None:
    before = {
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]
    }
    pod = make_pod(status=before)
    ready = ContainerState("main", attempt=1, started_at=NOW - 5, started=True, ready=True)
    assert condition(status_of(pod, one(pod, ready)), "Ready")["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    ready.ready = False
    assert condition(status_of(pod, one(pod, ready)), "Ready")["lastTransitionTime"] == timestamp(NOW)


def test_a_container_between_two_attempts_waits_with_its_last_end(make_pod: Any) -> None:
    pod = make_pod()
    crash = Exit(1, NOW - 4, NOW - 3, "Error", message="no data", container_id="moe-local://u-1/main/2")
    state = ContainerState("main", attempt=2, started_at=NOW - 4, exit=crash, retry_at=NOW + 7)
    container = status_of(pod, one(pod, state))["containerStatuses"][0]
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["lastState"]["terminated"]["message"] == "no data"
    assert container["restartCount"] == 1


def test_a_problem_is_what_a_container_waits_for(make_pod: Any) -> None:
    pod = make_pod()
    state = ContainerState(
        "main", problem=Problem("CreateContainerConfigError", 'secret "x" not found'), retry_at=NOW + 1
    )
    status = status_of(pod, one(pod, state))
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}
    assert status["containerStatuses"][0]["state"] == {"waiting": waiting}
    assert status["phase"] == "Pending"


def test_a_disrupted_pod_says_so(make_pod: Any) -> None:
    pod = make_pod(restartPolicy="Never")
    stopped = Exit(143, NOW - 4, NOW - 3, "Error", signal=15)
    state = one(pod, ContainerState("main", attempt=1, started_at=NOW - 4, exit=stopped))
    state.end = End(5, "Terminated", "the node was shut down", "Failed", disrupted=True)
    status = status_of(pod, state)
    assert (status["phase"], status["reason"]) == ("Failed", "Terminated")
    assert condition(status, "DisruptionTarget")["reason"] == "TerminationByKubelet"
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143


def test_containers_that_never_ran_are_ended_too_when_a_pod_is_refused(make_pod: Any) -> None:
    pod = make_pod()
    state = PodState({"main": ContainerState("main")}, End(0, "OutOfcpu", "no room", "Failed"))
    status = status_of(pod, state)
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "OutOfcpu", "no room")
    assert status["containerStatuses"][0]["state"]["terminated"]["reason"] == "ContainerStatusUnknown"


def test_a_pod_with_init_containers_says_which_are_incomplete(make_pod: Any) -> None:
    pod = make_pod(initContainers=[{"name": "a"}, {"name": "b"}])
    done = ContainerState("a", attempt=1, started_at=NOW - 4, exit=Exit(0, NOW - 4, NOW - 3, "Completed"))
    state = PodState({"a": done, "b": ContainerState("b"), "main": ContainerState("main")}, admitted_at=NOW)
    status = status_of(pod, state)
    assert condition(status, "Initialized")["message"] == "containers with incomplete status: [b]"
    assert status["initContainerStatuses"][0]["ready"]
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
