"""What a pool says of itself, from its first plan until everything serves."""

from typing import Any

import pytest
from world import POOL, World

from moe_formats.job_report import Failure
from moe_formats.resources.kinds import EXPERT_POOL


@pytest.fixture
def world() -> World:
    """A base and a domain, before anything was done about them."""
    world = World()
    world.pool()
    world.expert("general")
    world.expert("code")
    return world


def said(world: World) -> tuple[Any, ...]:
    """Return phase, reason and Experts that serve, and the reasons of what they rest on."""
    status = world.pool_status()
    found = {item.type: item for item in status.conditions}
    types = ("StorageReady", "ExpertsReady", "GatewayReady")
    return (status.phase, status.reason, status.experts, *(found[t].reason for t in types if t in found))


def test_the_way_to_a_pool_that_serves(world: World) -> None:
    seen = [item for item in world.course(said) if len(item) == 6]
    assert seen == [
        ("Progressing", "NotServing", "0/2", "WaitingForStorage", "Progressing", "NotServing"),
        ("Progressing", "NotServing", "0/2", "Ready", "Progressing", "NotServing"),
        ("Progressing", "WaitingForGateway", "0/2", "Ready", "Progressing", "WaitingForGateway"),
        ("Progressing", "Progressing", "0/2", "Ready", "Progressing", "Ready"),
        ("Progressing", "Progressing", "1/2", "Ready", "Progressing", "Ready"),
        ("Progressing", "WaitingForGateway", "1/2", "Ready", "Progressing", "WaitingForGateway"),
        ("Progressing", "Progressing", "1/2", "Ready", "Progressing", "Ready"),
        ("Ready", "Ready", "2/2", "Ready", "Ready", "Ready"),
        ("Progressing", "WaitingForGateway", "2/2", "Ready", "Ready", "WaitingForGateway"),
        ("Ready", "Ready", "2/2", "Ready", "Ready", "Ready"),
    ]


def test_a_pool_that_serves_says_how_and_where(world: World) -> None:
    world.settle()
    assert world.pool_condition("Ready") == ("True", "Ready", "all 2 Experts serve")
    message = world.pool_condition("GatewayReady")[2]
    assert all(part in message for part in ("gateways: 1", "2 Experts", "Distilled"))
    routing = world.pool_status().routing
    assert routing.url == f"http://{POOL}-gateway.default.svc:8080"
    assert (routing.strategy, routing.reported_by) == ("Distilled", 1)
    assert routing.revisions == {"code": "code-1", "general": "general-1"}
    assert world.pool_status().replicas == 1


def test_why_the_strategy_that_is_asked_for_is_not_in_force_is_told(world: World) -> None:
    world.settle()
    world.delete("ExpertPool", POOL)
    world.settle()
    world.pool()
    (job,) = world.plan("ExpertPool", POOL).create
    missing = Failure(reason="CellsMissing", message="holdout x was not scored with code-1")
    world.trainer.fate[job["metadata"]["name"]] = missing
    world.settle()
    assert world.pool_status().routing.strategy == "Posterior"
    message = world.pool_condition("GatewayReady")[2]
    assert "spec.routing.strategy is Distilled, and Posterior stands in" in message
    assert "holdout x was not scored with code-1" in message


def test_the_strategy_column_shows_what_is_in_force() -> None:
    (column,) = (column for column in EXPERT_POOL.columns if column.name == "Strategy")
    assert column.path == ".status.routing.strategy"


def test_the_gateway_has_an_ordinary_service_and_one_that_was_headless_stays(world: World) -> None:
    world.settle()
    name = f"{POOL}-gateway"
    assert "clusterIP" not in world.get("Service", name)["spec"]
    world.edit("Service", name, {"spec": {"clusterIP": "None"}})
    before = world.writes
    world.settle()
    world.reconcile("ExpertPool", POOL)
    assert world.get("Service", name)["spec"]["clusterIP"] == "None"
    assert world.writes == before


def test_an_expert_that_does_not_serve_is_named_with_its_phase_and_reason(world: World) -> None:
    world.kubelet.unschedulable.add("code-1-a1")
    world.settle()
    status, reason, message = world.pool_condition("ExpertsReady")
    assert (status, reason) == ("False", "Progressing")
    assert message == "not serving: code (Training: WaitingForCapacity)"
    assert world.pool_condition("Reconciling")[2] == "under way: code"


def test_a_fallback_that_does_not_serve_is_told(world: World) -> None:
    world.pool(routing={"fallback": "nobody"})
    world.settle()
    assert (
        "spec.routing.fallback is 'nobody', which does not serve" in world.pool_condition("GatewayReady")[2]
    )


def test_an_empty_pool_and_a_paused_one() -> None:
    world = World()
    world.pool()
    world.settle()
    assert world.pool_condition("ExpertsReady")[:2] == ("False", "Pending")
    world.pool(paused=True)
    world.settle()
    assert world.pool_status().phase == "Paused"
    assert world.pool_condition("Paused")[:2] == ("True", "Paused")


def kstatus(world: World) -> tuple[str, str]:
    """What tools wait for: Ready, and whether anything is under way."""
    return world.pool_condition("Ready")[0], world.pool_condition("Reconciling")[0]


def test_an_expert_at_zero_replicas_leaves_its_pool_ready(world: World) -> None:
    world.change("code", serving={"replicas": 0})
    world.settle()
    assert kstatus(world) == ("True", "False")
    assert world.pool_condition("ExpertsReady") == (
        "True",
        "Ready",
        "1 Expert serves; spec.serving.replicas is 0: code",
    )
    assert world.pool_status().experts == "1/2"
    world.change("general", serving={"replicas": 0})
    world.settle()
    assert kstatus(world) == ("True", "False")


def test_a_pool_whose_experts_never_asked_for_servers_is_ready_once_they_are_trained() -> None:
    world = World()
    world.pool()
    world.expert("general", serving={"replicas": 0})
    world.settle()
    assert world.status("general").current_revision == "general-1"
    assert kstatus(world) == ("True", "False")
    assert world.pool_condition("GatewayReady")[:2] == ("False", "NotServing")
    world.change("general", serving={"replicas": 1})
    world.settle()
    assert kstatus(world) == ("True", "False")
    assert world.pool_condition("GatewayReady")[0] == "True"


def test_an_empty_pool_is_ready_though_its_claim_waits_for_its_first_pod() -> None:
    world = World()
    world.pool()
    world.settle()
    assert kstatus(world) == ("True", "False")
    assert "no Expert names this pool yet" in world.pool_condition("Ready")[2]
    world.edit("PersistentVolumeClaim", f"{POOL}-store", {"status": {"phase": "Pending"}})
    world.reconcile("ExpertPool", POOL)
    assert world.pool_condition("StorageReady")[0] == "False"
    assert kstatus(world) == ("True", "False")
    world.edit("PersistentVolumeClaim", f"{POOL}-store", {"status": {"phase": "Lost"}})
    world.reconcile("ExpertPool", POOL)
    assert kstatus(world)[0] == "False"


def test_a_pool_with_an_expert_that_stalled_before_it_ever_served_is_not_ready(world: World) -> None:
    world.change("code", serving={"replicas": 0, "profile": "unknown"})
    world.settle()
    assert kstatus(world)[0] == "False"
    assert "code (Stalled: UnknownProfile)" in world.pool_condition("ExpertsReady")[2]
