from __future__ import annotations

import random
from typing import Any

import pytest

from moe_local.agent.config import BackOff
from moe_local.agent.lifecycle import decide, next_back_off
from moe_local.agent.pod import Pod
from moe_local.agent.state import ContainerState, End, Exit, PodState

NOW = 1000.0


def state_of(pod: Pod, **states: ContainerState) -> PodState:
    known = {c.name: states.get(c.name, ContainerState(c.name)) for c in pod.all_containers()}
    return PodState(known, admitted_at=NOW - 5)


def running(name: str = "main", *, started: bool = True) -> ContainerState:
    return ContainerState(name, attempt=1, started_at=NOW - 1, started=started)


def ended(name: str = "main", code: int = 0, *, retry_at: float = 0.0) -> ContainerState:
    return ContainerState(
        name, attempt=1, started_at=NOW - 2, exit=Exit(code, NOW - 2, NOW - 1, "Error"), retry_at=retry_at
    )


def three(make_pod: Any, **spec: Any) -> Pod:
    return make_pod(  # type: ignore[no-any-return]
        initContainers=[{"name": "first"}, {"name": "side", "restartPolicy": "Always"}, {"name": "last"}],
        **spec,
    )


def test_init_containers_run_one_after_the_other_and_wait_for_a_sidecar_to_have_started(
    make_pod: Any,
) -> None:
    pod = three(make_pod)
    steps = [
        ({}, ("first",)),
        ({"first": running("first")}, ()),
        ({"first": ended("first")}, ("side",)),
        ({"first": ended("first"), "side": running("side", started=False)}, ()),
        ({"first": ended("first"), "side": running("side")}, ("last",)),
        ({"first": ended("first"), "side": running("side"), "last": ended("last")}, ("main",)),
    ]
    for states, expected in steps:
        assert decide(pod, state_of(pod, **states), NOW).start == expected


def test_a_failed_init_container_fails_a_pod_that_never_restarts(make_pod: Any) -> None:
    pod = three(make_pod, restartPolicy="Never")
    assert decide(pod, state_of(pod, first=ended("first", 1)), NOW).phase == "Failed"
    pod = three(make_pod, restartPolicy="OnFailure")
    assert decide(pod, state_of(pod, first=ended("first", 1)), NOW).start == ("first",)


def test_a_sidecar_ends_after_the_containers_and_does_not_decide_the_phase(make_pod: Any) -> None:
    pod = three(make_pod, restartPolicy="Never")
    states = {"first": ended("first"), "side": running("side"), "last": ended("last"), "main": ended()}
    decision = decide(pod, state_of(pod, **states), NOW)
    assert (decision.stop, decision.final) == (("side",), False)
    states["side"] = ended("side", 137)
    assert decide(pod, state_of(pod, **states), NOW).phase == "Succeeded"


@pytest.mark.parametrize(
    ("policy", "code", "start", "phase"),
    [
        ("Always", 0, ("main",), "Running"),
        ("Always", 1, ("main",), "Running"),
        ("OnFailure", 1, ("main",), "Running"),
        ("OnFailure", 0, (), "Succeeded"),
        ("Never", 0, (), "Succeeded"),
        ("Never", 1, (), "Failed"),
    ],
)
def test_restart_policies(make_pod: Any, policy: str, code: int, start: tuple[str, ...], phase: str) -> None:
    pod = make_pod(restartPolicy=policy)
    decision = decide(pod, state_of(pod, main=ended(code=code)), NOW)
    assert (decision.start, decision.phase) == (start, phase)


def test_a_container_that_backs_off_is_looked_at_when_its_wait_is_over(make_pod: Any) -> None:
    pod = make_pod()
    decision = decide(pod, state_of(pod, main=ended(code=1, retry_at=NOW + 7)), NOW)
    assert (decision.start, decision.look_again, decision.phase) == ((), NOW + 7, "Running")


def test_a_deadline_is_looked_at_in_time(make_pod: Any) -> None:
    pod = make_pod(activeDeadlineSeconds=20)
    assert decide(pod, state_of(pod, main=running()), NOW).look_again == NOW + 15


def test_an_ending_pod_stops_each_container_once_and_starts_none(make_pod: Any) -> None:
    pod = make_pod()
    state = state_of(pod, main=running())
    state.end = End(30)
    assert decide(pod, state, NOW).stop == ("main",)
    state.containers["main"].stopping = True
    assert decide(pod, state, NOW).stop == ()
    state = state_of(pod, main=ended(code=143))
    state.end = End(30)
    decision = decide(pod, state, NOW)
    assert (decision.start, decision.phase) == ((), "Failed")


def test_a_drained_pod_that_may_restart_has_no_final_phase(make_pod: Any) -> None:
    pod = make_pod()
    state = state_of(pod, main=ended(code=143))
    state.end = End(5, restarts_later=True)
    assert not decide(pod, state, NOW).final


def test_the_wait_doubles_to_the_maximum_and_a_long_run_resets_it() -> None:
    config = BackOff()
    waits, wait = [], 0.0
    for _ in range(8):
        waits.append(wait)
        wait = next_back_off(wait, 1.0, config)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    assert next_back_off(300, 600, config) == 0


@pytest.mark.parametrize("seed", range(40))
def test_whatever_containers_do_the_pod_comes_to_an_end_in_order(seed: int) -> None:
    """A pod of random containers, each ending with random exit statuses, on a clock of its own."""
    dice = random.Random(seed)
    kinds = dice.choices([{}, {"restartPolicy": "Always"}], k=dice.randint(0, 3))
    init = [{"name": f"i{n}", **kind} for n, kind in enumerate(kinds)]
    mains = [{"name": f"m{n}"} for n in range(dice.randint(1, 3))]
    policy = dice.choice(["Never", "OnFailure"])
    spec = {"restartPolicy": policy, "initContainers": init, "containers": mains}
    pod = Pod.model_validate({"metadata": {"name": "p", "uid": "u"}, "spec": spec})
    state, now = state_of(pod), NOW
    order: list[str] = []
    for _ in range(500):
        decision = decide(pod, state, now)
        if decision.final:
            break
        for name in decision.start:
            current = state.containers[name]
            assert not current.running
            current.attempt, current.started_at, current.exit, current.started = (
                current.attempt + 1,
                now,
                None,
                True,
            )
            order.append(name)
        alive = [c for c in state.containers.values() if c.running]
        ending = [state.containers[name] for name in decision.stop]
        for current in ending or dice.sample(alive, k=min(dice.randint(0, 1), len(alive))):
            code = 143 if ending else dice.choice([0, 0, 1])
            current.exit, current.retry_at = Exit(code, now, now, "Error"), now + dice.randint(0, 3)
        now += 1
    assert decision.final
    assert decide(pod, state, now).start == ()
    begun = [name for name in dict.fromkeys(order) if name.startswith("i")]
    assert begun == [c["name"] for c in init][: len(begun)]
    if decision.phase == "Succeeded":
        ends = [state.containers[c["name"]].exit for c in mains]
        assert all(end and end.code == 0 for end in ends)
