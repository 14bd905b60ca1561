"""The routing policy: who is in it, by which revision, and when old servers may go."""

from dataclasses import replace
from datetime import timedelta

import pytest
from world import World

from moe_operator.planner.routing import plan_policy
from moe_operator.planner.serving import finished_servers
from moe_operator.state import ObservedGateway


@pytest.fixture(scope="module")
def settled() -> World:
    world = World()
    world.pool(routing={"strategy": "Distilled", "fallback": "general"})
    world.expert("general")
    world.expert("code")
    world.settle()
    return world


@pytest.fixture
def world(settled: World) -> World:
    return settled.fork()


def test_the_fallback_is_named_while_it_serves(world: World) -> None:
    policy = world.policy()
    assert policy is not None
    assert policy.fallback == "general"
    world.ready["general-1"] = 0
    without = plan_policy(world.pool_state(), None)
    assert without is not None
    assert without.fallback is None
    assert [entry.name for entry in without.experts] == ["code"]


def test_the_policy_never_shrinks_to_nothing(world: World) -> None:
    world.ready.clear()
    assert plan_policy(world.pool_state(), world.pool_state().pool.status.routing.table) == world.policy()


def test_posterior_stands_in_until_a_table_knows_every_expert(world: World) -> None:
    state = world.pool_state()
    table = state.pool.status.routing.table
    assert table is not None
    assert plan_policy(state, table).strategy == "Distilled"  # type: ignore[union-attr]
    assert plan_policy(state, None).strategy == "Posterior"  # type: ignore[union-attr]
    partial = table.model_copy(update={"experts": ["code"]})
    assert plan_policy(state, partial).strategy == "Posterior"  # type: ignore[union-attr]


def test_posterior_divides_by_the_temperature_that_was_fitted_with_the_table(world: World) -> None:
    state = world.pool_state()
    table = state.pool.status.routing.table
    assert table is not None
    fitted = table.model_copy(update={"posterior_temperature": 9.5})
    assert plan_policy(state, fitted).temperature == 9.5  # type: ignore[union-attr]
    assert plan_policy(state, None).temperature == 1.0  # type: ignore[union-attr]


def test_a_new_revision_without_a_ready_server_leaves_the_old_one_in_place(world: World) -> None:
    world.change("code", seed=1)
    world.settle()
    world.ready["code-2"] = 0
    policy = plan_policy(world.pool_state(), None)
    assert policy is not None
    assert [entry.name for entry in policy.experts] == ["general"]


def test_old_servers_stay_until_every_gateway_has_had_the_policy_for_a_while(world: World) -> None:
    world.pool(routing={"strategy": "Posterior"})
    world.settle()
    world.change("code", seed=1)
    while world.status("code").current_revision != "code-2":
        for key in world.subjects():
            world.reconcile(*key)
        world.tick()
    for key in world.subjects():
        world.reconcile(*key)
    world.tick()
    for key in world.subjects():
        world.reconcile(*key)
    policy = world.policy()
    assert policy is not None
    assert policy.expert("code").revision == "code-2"  # type: ignore[union-attr]
    state = world.pool_state()
    assert finished_servers(state, policy, now=world.now) == []
    later = world.now + timedelta(seconds=5)
    assert [server.name for server in finished_servers(state, policy, now=later)] == ["code-1"]
    slow = ObservedGateway(2, 2, {"one": policy.digest(), "two": "sha256:" + "0" * 64})
    assert finished_servers(replace(state, gateway=slow), policy, now=later) == []


def test_a_deleted_policy_is_written_again(world: World) -> None:
    before = world.policy()
    world.delete("ConfigMap", "first-pool-routing")
    world.settle()
    assert world.policy() == before


def test_a_pool_without_gateways_still_hands_over(world: World) -> None:
    world.pool(gateway={"replicas": 0})
    world.settle()
    world.change("code", seed=1)
    world.settle()
    assert sorted(world.servers()) == ["code-2", "general-1"]
    assert world.status("code").serving.revision == "code-2"


def test_the_table_is_made_anew_for_a_new_roster(world: World) -> None:
    before = world.pool_state().pool.status.routing.table
    world.change("code", seed=1)
    world.settle()
    after = world.pool_state().pool.status.routing.table
    assert before is not None
    assert after is not None
    assert after.roster != before.roster
    assert len([job for job in world.jobs() if job.role == "distill"]) == 1


def test_a_fallback_beyond_the_largest_policy_is_left_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moe_operator.planner.routing.MAX_EXPERTS", 1)
    policy = plan_policy(world.pool_state(), None)
    assert policy is not None
    assert ([entry.name for entry in policy.experts], policy.fallback) == (["code"], None)
