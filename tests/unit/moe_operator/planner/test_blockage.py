"""Jobs, servers and gateways without a pod that runs: why is said by its cause, nothing churns, and others go on."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from world import POOL, World

from moe_formats.resources.reasons import Reason
from moe_operator.planner.blockage import waits_for_queue
from moe_operator.state import ObservedJob, Role


@pytest.fixture
def world() -> World:
    world = World()
    world.pool()
    return world


def run(world: World, minutes: float) -> None:
    world.run(until=world.now + timedelta(minutes=minutes))


def alone(world: World, name: str) -> str:
    """Create an Expert that branches from nobody, and return the name that its snapshot Job will have."""
    world.expert(name, base={"preset": "tiny"})
    (job,) = world.plan("Expert", name).create
    return str(job["metadata"]["name"])


def started(world: World) -> list[str]:
    """Return the Jobs that are not suspended."""
    return [job["metadata"]["name"] for job in world.all("Job") if not job["spec"]["suspend"]]


def test_a_claim_that_waits_for_its_first_pod_is_bound_by_one_snapshot(world: World) -> None:
    world.server.storage = "WaitForFirstConsumer"
    for name in ("general", "code"):
        world.expert(name)
    world.settle()
    assert {world.status(name).phase for name in ("general", "code")} == {"Serving"}


def test_a_pool_whose_claim_is_never_bound_does_not_churn(world: World) -> None:
    world.server.storage = "Never"
    for name in ("general", "code", "mathematics"):
        world.expert(name)
    run(world, 60)
    before = world.writes
    run(world, 60)
    assert world.writes - before <= 40, "four turns of some ten writes"
    assert len(started(world)) == 1
    assert world.condition("code", "DataReady")[1] == Reason.WAITING_FOR_STORAGE
    assert "unbound immediate PersistentVolumeClaims" in world.condition("code", "DataReady")[2]
    world.server.storage = "Immediate"
    run(world, 30)
    world.settle()
    assert {world.status(name).phase for name in ("general", "code")} == {"Serving"}


def test_nothing_starts_on_a_claim_that_was_lost(world: World) -> None:
    world.expert("general")
    world.reconcile("ExpertPool", POOL)
    world.edit("PersistentVolumeClaim", f"{POOL}-store", {"status": {"phase": "Lost"}})
    world.reconcile("Expert", "general")
    world.now += timedelta(minutes=1)
    assert world.plan("ExpertPool", POOL).resume == ()


def test_turns_of_snapshots_that_cannot_start_become_rarer_up_to_a_quarter_of_an_hour(world: World) -> None:
    world.kubelet.unschedulable |= {alone(world, "aaa"), alone(world, "bbb")}
    changes: list[tuple[int, list[str]]] = []
    for minute in range(180):
        run(world, 1)
        if not changes or changes[-1][1] != started(world):
            changes.append((minute, started(world)))
    waits = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(changes)]
    assert waits[0] <= 2
    assert waits[-2:] == [15, 15]
    assert len(started(world)) == 1
    assert len(world.created) == 2, "a Job whose turn is over is suspended, not made again"


def test_a_snapshot_that_cannot_start_keeps_its_turn_while_nobody_else_can(world: World) -> None:
    world.kubelet.unschedulable.add(alone(world, "general"))
    run(world, 10)
    before = world.writes
    run(world, 600)
    assert world.writes == before
    world.kubelet.unschedulable.clear()
    world.settle()
    assert world.status("general").phase == "Serving"


@pytest.mark.parametrize(
    ("waiting", "reason"),
    [
        (("ImagePullBackOff", 'Back-off pulling image "x"'), Reason.IMAGE_UNAVAILABLE),
        (("CreateContainerConfigError", 'configmap "x" not found'), Reason.POD_NOT_STARTED),
    ],
)
def test_the_reason_says_what_keeps_a_pod_from_running(
    world: World, waiting: tuple[str, str], reason: Reason
) -> None:
    world.expert("general")
    world.kubelet.waiting["general-1-a1"] = waiting
    run(world, 5)
    assert world.status("general").reason == reason
    assert waiting[1] in world.condition("general", "Trained")[2]


def test_a_pod_whose_volume_cannot_be_mounted_is_told_after_a_minute(world: World) -> None:
    """The kubelet says so only in Events."""
    world.kubelet.waiting[alone(world, "aaa")] = ("ContainerCreating", "")
    run(world, 0.5)
    assert world.condition("aaa", "DataReady")[1] == Reason.STARTING
    run(world, 1)
    reason, message = world.condition("aaa", "DataReady")[1:]
    assert reason == Reason.POD_NOT_STARTED
    assert "kubectl describe pod aaa-snapshot-" in message
    assert "cannot mount a volume" in message
    world.expert("general")
    world.settle()
    assert world.status("general").phase == "Serving", "others get their turn"


def test_a_job_whose_pods_a_quota_refuses_does_not_claim_to_run_and_hands_its_turn_on(world: World) -> None:
    job = alone(world, "aaa")
    world.server.quota_used_up = True
    world.expert("general")
    run(world, 0.5)
    assert world.condition("aaa", "DataReady")[1] == Reason.STARTING
    run(world, 2)
    reason, message = world.condition("aaa", "DataReady")[1:]
    assert reason == Reason.POD_NOT_CREATED
    assert f"kubectl describe job {job}" in message
    run(world, 10)
    assert len(started(world)) == 1
    world.server.quota_used_up = False
    run(world, 30)
    world.settle()
    assert world.status("aaa").phase == "Serving"
    assert world.status("general").phase == "Serving"


@pytest.mark.parametrize("before", ["snapshot", "train"])
def test_training_and_evaluation_without_a_pod_are_told_too(world: World, before: str) -> None:
    world.expert("general")
    while not world.all("Pod", role=before):
        world.reconcile_all()
        world.tick(0.1)
    world.server.quota_used_up = True
    run(world, 2)
    assert world.status("general").reason == Reason.POD_NOT_CREATED
    assert "kubectl describe job general-1-" in world.condition("general", "Ready")[2]


def test_servers_and_gateways_whose_pods_a_quota_refuses_are_told(world: World) -> None:
    world.expert("general")
    world.settle()
    world.server.quota_used_up = True
    for pod in world.all("Pod"):
        if pod["metadata"]["ownerReferences"][0]["kind"] == "ReplicaSet":
            world.delete("Pod", pod["metadata"]["name"])
    run(world, 1)
    assert "exceeded quota: pods=0" in world.condition("general", "Serving")[2]
    assert "exceeded quota: pods=0" in world.pool_condition("GatewayReady")[2]
    world.server.quota_used_up = False
    world.settle()
    assert world.condition("general", "Ready")[0] == "True"
    assert world.pool_condition("Ready")[0] == "True"


def test_what_waits_for_a_queue_says_why_or_where_to_look() -> None:
    made = datetime(2026, 1, 1, tzinfo=UTC)
    job = ObservedJob("j", "u", Role.TRAIN, made, suspended=True, state="Suspended", queue="research")
    assert waits_for_queue(job).startswith("waits for queue research: `kubectl describe workload` of Job j")
    told = replace(job, waits="insufficient quota for cpu")
    assert waits_for_queue(told) == "waits for queue research: insufficient quota for cpu"
