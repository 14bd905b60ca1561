"""A pool with more Experts than it can route to: the newcomer is refused, and nothing that serves is displaced."""

from datetime import timedelta

import pytest
from world import World

from moe_operator.planner import membership


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> World:
    """A pool that can have three Experts, and has them."""
    monkeypatch.setattr(membership, "MAX_EXPERTS", 3)
    world = World()
    world.pool()
    for name in ("general", "code", "mathematics"):
        world.expert(name)
    world.settle()
    return world


def routed(world: World) -> list[str]:
    policy = world.policy()
    assert policy is not None
    return [entry.name for entry in policy.experts]


def test_a_newcomer_is_refused_by_name_and_limit_and_displaces_nobody(full: World) -> None:
    before = full.created[:]
    full.now += timedelta(minutes=1)
    full.expert("aardvarks")
    full.settle()
    status, reason, message = full.condition("aardvarks", "Stalled")
    assert (status, reason) == ("True", "PoolFull")
    assert "3 Experts" in message
    assert full.created == before, "it starts no work"
    assert routed(full) == ["code", "general", "mathematics"]
    policy = full.policy()
    assert policy is not None
    assert policy.strategy == "Distilled"


def test_it_takes_part_once_another_is_gone(full: World) -> None:
    full.now += timedelta(minutes=1)
    full.expert("aardvarks")
    full.settle()
    full.delete("Expert", "mathematics")
    full.settle()
    assert full.status("aardvarks").phase == "Serving"
    assert routed(full) == ["aardvarks", "code", "general"]


def test_of_more_experts_that_serve_already_the_oldest_stay_routed(
    full: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a pool that an operator before this limit let grow."""
    monkeypatch.setattr(membership, "MAX_EXPERTS", 4)
    full.now += timedelta(minutes=1)
    full.expert("aardvarks")
    full.settle()
    assert "aardvarks" in routed(full)
    monkeypatch.setattr(membership, "MAX_EXPERTS", 3)
    full.reconcile_all()
    full.settle()
    assert routed(full) == ["code", "general", "mathematics"]
    assert full.has("Deployment", "aardvarks-1"), "what serves is not taken away"
