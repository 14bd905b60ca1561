"""Pods that are taken away or refused by their node: no fault of the work, also once nothing is left of the pod."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import pytest
from world import START as NOW
from world import World

from moe_formats.job_report import Failure
from moe_formats.resources.labels import TAKEN
from moe_formats.resources.reasons import Reason
from moe_operator.planner.disruption import notes, taken_away
from moe_operator.state import ObservedJob, ObservedPod, Role


@pytest.fixture
def world() -> World:
    """An Expert that has one attempt, and whose training takes an hour."""
    world = World()
    world.pool()
    world.expert("general", training={"maxAttempts": 1})
    world.kubelet.durations["train"] = timedelta(hours=1)
    return world


def run(world: World, minutes: float) -> None:
    world.run(until=world.now + timedelta(minutes=minutes))


@pytest.mark.parametrize("evict", [True, False], ids=["evicted", "deleted"])
def test_pods_that_are_taken_away_use_up_no_attempt(world: World, evict: bool) -> None:
    run(world, 2)
    for attempt in range(1, 7):
        job = f"general-1-a{attempt}"
        world.take(job, evict=evict)
        run(world, 0.1)
        assert not [pod for pod in world.all("Pod") if pod["metadata"]["name"].startswith(job)]
        reason, message = world.condition("general", "Trained")[1:]
        assert reason == Reason.RETRYING
        assert job in message
        run(world, 20)
    world.settle()
    run(world, 90)
    assert world.status("general").phase == "Serving"
    assert world.revision("general-1").status.attempts == 7


@pytest.mark.parametrize("role", ["snapshot", "evaluate", "distill"])
def test_the_same_holds_for_all_that_jobs_do(role: str) -> None:
    world = World()
    world.pool()
    for name in ("general", "code"):
        world.expert(name)
    world.kubelet.durations[role] = timedelta(hours=1)
    for _ in range(6):
        run(world, 20)
        for job in [job for job in world.all("Job", role=role) if not job["spec"]["suspend"]]:
            world.take(job["metadata"]["name"], evict=False)
    del world.kubelet.durations[role]
    world.kubelet.hurry()
    run(world, 180)
    assert {world.status(name).phase for name in ("general", "code")} == {"Serving"}
    assert world.pool_condition("TableReady")[0] == "True"


def test_an_eviction_while_no_operator_ran_is_read_from_the_job(world: World) -> None:
    run(world, 2)
    world.take("general-1-a1")
    for _ in range(5):
        world.tick()
    assert not world.all("Pod", role="train")
    world = world.fork()
    run(world, 0.1)
    assert world.condition("general", "Stalled")[0] == "False"
    assert world.condition("general", "Trained")[1] == Reason.RETRYING


def test_a_failure_of_the_work_still_counts_and_so_does_one_after_a_pod_was_taken(world: World) -> None:
    run(world, 2)
    world.take("general-1-a1", evict=False)
    world.trainer.fate["general-1-a2"] = 1
    run(world, 90)
    assert world.condition("general", "Stalled")[:2] == ("True", Reason.JOB_FAILED)
    assert world.revision("general-1").status.attempts == 2


def test_pods_that_a_node_rejects_use_up_no_attempt_and_what_it_says_is_shown(world: World) -> None:
    world.kubelet.rejected |= {f"general-1-a{attempt}" for attempt in range(1, 6)}
    run(world, 2)
    reason, message = world.condition("general", "Trained")[1:]
    assert reason == Reason.RETRYING
    assert "UnexpectedAdmissionError: Pod was rejected: Allocate failed due to no healthy devices" in message
    for pod in world.all("Pod", role="train"):
        world.delete("Pod", pod["metadata"]["name"])
    run(world, 180)
    assert world.status("general").phase == "Serving"
    assert world.revision("general-1").status.attempts == 6


def test_a_gang_that_lost_a_node_uses_up_no_attempt_though_its_other_pods_end_first() -> None:
    """Of two pods one is silent: its peer gives up, and only then does the node controller say that the node is gone."""
    told = Failure(reason="PeerLost", message="a peer is gone", retryable=True)
    ended = ObservedPod("p-0", "u0", "Failed", False, NOW, exit_code=75)
    silent = ObservedPod("p-1", "u1", "Running", False, NOW, deleting=True)
    failed = gang("Failed", ended, silent, headline=told)
    assert taken_away(failed) is None
    lost = replace(silent, lost=True)
    ((_, note),) = notes([replace(failed, pods=(ended, lost))])
    assert "lost the node of its pod p-1" in note[TAKEN]
    assert not list(notes([gang("Running", ended, lost)])), "the node may come back with the pod"


def gang(state: Literal["Running", "Failed"], *pods: ObservedPod, **fields: Any) -> ObservedJob:
    return ObservedJob("j-a1", "u", Role.TRAIN, NOW, False, state, pods=pods, width=2, **fields)
