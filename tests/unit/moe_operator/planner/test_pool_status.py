"""What a pool says of itself, from its first plan until everything serves."""

from typing import Any

import pytest
from world import POOL, World


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
