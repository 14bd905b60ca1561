"""Decides which containers of a pod to start or stop now, in the same order as a kubelet. Pure.

Init containers run one after the other. One with restartPolicy Always is a sidecar: the next one starts once it has
started, and it runs until the last container has ended. A container that ends is restarted according to its restart
policy, after a wait that doubles each time.
"""

from __future__ import annotations

from collections.abc import Sequence

from moe_local.agent.config import BackOff
from moe_local.agent.pod import Container, Pod
from moe_local.agent.state import Decision, Phase, PodState


def is_sidecar(pod: Pod, container: Container) -> bool:
    """Return whether it is an init container that keeps running."""
    return container.restart_policy == "Always" and container in pod.spec.init_containers


def restarts_after(policy: str, code: int) -> bool:
    """Return whether a container that ended with this exit status is restarted."""
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def policy_of(pod: Pod, container: Container) -> str:
    """Return the restart policy of a container; an init container that succeeded is done under any policy of the pod."""
    if container in pod.spec.init_containers:
        if is_sidecar(pod, container):
            return "Always"
        return "Never" if pod.spec.restart_policy == "Never" else "OnFailure"
    return pod.spec.restart_policy


def next_back_off(previous: float, ran_seconds: float, config: BackOff) -> float:
    """Return the wait after the next end, given the previous wait: 0, then the initial wait, then doubling to the maximum."""
    if ran_seconds >= config.reset_after:
        return 0.0
    return min(config.maximum, previous * 2 if previous else config.initial)


def decide(pod: Pod, state: PodState, now: float) -> Decision:
    """Return what to do about a pod at the time `now`."""
    if state.end:
        return _end(pod, state, state.end.phase)
    deadline = pod.spec.active_deadline_seconds
    initialized, start, again = _init(pod, state, now)
    failed_init = any(_failed_for_good(pod, c, state) for c in pod.spec.init_containers)
    if failed_init:
        return _end(pod, state, "Failed")
    mains = [state.containers[c.name] for c in pod.spec.containers]
    if initialized:
        if all(_done(pod, c, state) for c in pod.spec.containers):
            return _end(pod, state, None)
        more, later = _startable(pod, pod.spec.containers, state, now)
        start, again = start + more, again + later
    if deadline is not None and state.admitted_at:
        again.append(state.admitted_at + deadline)
    begun = initialized and all(c.attempt for c in mains)
    return Decision(
        start=tuple(start),
        phase="Running" if begun else "Pending",
        initialized=initialized,
        look_again=min(again, default=None),
    )


def _init(pod: Pod, state: PodState, now: float) -> tuple[bool, list[str], list[float]]:
    """Return whether the main containers may run, which init containers to start, and when to decide again."""
    start: list[str] = []
    again: list[float] = []
    for container in pod.spec.init_containers:
        now_state = state.containers[container.name]
        if _done(pod, container, state):
            continue
        more, later = _startable(pod, (container,), state, now)
        start, again = start + more, again + later
        mains_begun = any(state.containers[c.name].attempt for c in pod.spec.containers)
        passed = is_sidecar(pod, container) and ((now_state.running and now_state.started) or mains_begun)
        if not passed:
            return False, start, again
    return True, start, again


def _startable(
    pod: Pod, containers: Sequence[Container], state: PodState, now: float
) -> tuple[list[str], list[float]]:
    """Return the containers that should be started now, and the times at which others should."""
    start, again = [], []
    for container in containers:
        current = state.containers[container.name]
        if current.running or _done(pod, container, state) or (current.problem and current.problem.permanent):
            continue
        if current.retry_at <= now:
            start.append(container.name)
        else:
            again.append(current.retry_at)
    return start, again


def _done(pod: Pod, container: Container, state: PodState) -> bool:
    """Return whether it has ended and will not be restarted."""
    ended = state.containers[container.name].exit
    return ended is not None and not restarts_after(policy_of(pod, container), ended.code)


def _failed_for_good(pod: Pod, container: Container, state: PodState) -> bool:
    ended = state.containers[container.name].exit
    return _done(pod, container, state) and ended is not None and ended.code != 0


def _end(pod: Pod, state: PodState, phase: Phase | None) -> Decision:
    """Stop the main containers, then the sidecars, the last one first; then the pod has its final phase."""
    ordinary = [c for c in pod.all_containers() if not is_sidecar(pod, c)]
    running = [c.name for c in ordinary if state.containers[c.name].running]
    if not running:
        sidecars = [c.name for c in pod.spec.init_containers if state.containers[c.name].running]
        running = sidecars[-1:]
    initialized = all(_done(pod, c, state) or is_sidecar(pod, c) for c in pod.spec.init_containers)
    begun = all(state.containers[c.name].attempt for c in pod.spec.containers)
    if running:
        to_stop = tuple(name for name in running if not state.containers[name].stopping)
        return Decision(stop=to_stop, phase="Running" if begun else "Pending", initialized=initialized)
    if state.end and state.end.restarts_later:
        return Decision(phase="Running" if begun else "Pending", initialized=initialized)
    return Decision(phase=phase or final_phase(pod, state), initialized=initialized)


def final_phase(pod: Pod, state: PodState) -> Phase:
    """Return Succeeded if every main container ended with exit status 0, else Failed."""
    exits = [state.containers[c.name].exit for c in pod.spec.containers]
    return "Succeeded" if all(e is not None and e.code == 0 for e in exits) else "Failed"
