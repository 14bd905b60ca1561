"""The routing policy: who is in it, by which revision, and when old servers may go."""

from datetime import timedelta
from typing import Any

import pytest
from world import POOL, World

from moe_formats.routing_policy import RoutingPolicy, parse_routing_policy


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


def planned_policy(world: World) -> RoutingPolicy:
    """Return the policy that the pool's next plan leads to."""
    plan = world.plan("ExpertPool", POOL)
    found = [item["data"]["policy.json"] for item in plan.apply if item["kind"] == "ConfigMap"]
    policy = parse_routing_policy(found[0]) if found else world.policy()
    assert policy is not None
    return policy


def change_table(world: World, **table: Any) -> None:
    """Change what the pool's status says of its table."""
    world.edit("ExpertPool", POOL, {"status": {"routing": {"table": table}}})


def without_table(world: World) -> None:
    """Take the table away, and the Job that says where it is."""
    world.edit("ExpertPool", POOL, {"status": {"routing": {"table": None}}})
    for job in world.all("Job", role="distill"):
        world.delete("Job", job["metadata"]["name"])


def test_the_fallback_stays_named_while_no_server_of_it_is_ready(world: World) -> None:
    policy = world.policy()
    assert policy is not None
    assert policy.fallback == "general"
    world.kubelet.unready.add("general-1")
    world.run(until=world.now + timedelta(seconds=30))
    without = world.policy()
    assert without is not None
    assert without.fallback == "general"
    assert readiness(without) == {"code": True, "general": False}
    assert (
        "spec.routing.fallback is 'general', of which no server is ready"
        in world.pool_condition("GatewayReady")[2]
    )


def test_the_policy_never_shrinks_to_nothing(world: World) -> None:
    before = world.policy()
    assert before is not None
    world.kubelet.unready |= set(world.servers())
    world.settle()
    assert world.status("code").serving.ready_replicas == world.status("general").serving.ready_replicas == 0
    now = planned_policy(world)
    assert world.policy() == now
    assert readiness(now) == {"code": False, "general": False}
    assert [entry.revision for entry in now.experts] == [entry.revision for entry in before.experts]
    world.kubelet.unready.clear()
    world.settle()
    assert world.policy() == planned_policy(world) == before


def test_an_expert_that_is_scaled_to_zero_exists_and_asks_for_no_other_table(world: World) -> None:
    before, jobs = world.pool_status().routing.table, world.all("Job", role="distill")
    world.change("code", serving={"replicas": 0})
    world.settle()
    assert readiness(world.policy()) == {"code": False, "general": True}
    assert world.policy().strategy == "Distilled"
    assert world.pool_status().routing.table == before
    assert world.all("Job", role="distill") == jobs
    world.change("code", serving={"replicas": 1})
    world.settle()
    assert readiness(world.policy()) == {"code": True, "general": True}
    assert world.pool_status().routing.table == before


def test_a_table_from_before_an_expert_at_zero_was_known_routes_until_it_serves(world: World) -> None:
    """Tables that earlier operators made do not know Experts that were at zero replicas."""
    world.change("code", serving={"replicas": 0})
    world.settle()
    change_table(world, experts=["general"])
    assert planned_policy(world).strategy == "Distilled"


def test_experts_that_serve_come_first_if_there_are_too_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moe_operator.planner.membership.MAX_EXPERTS", 1)
    world.kubelet.unready.add("code-1")
    world.run(until=world.now + timedelta(seconds=30))
    assert routed(world) == {"general": "general-1"}


def test_a_deleted_expert_leaves_the_policy(world: World) -> None:
    world.delete("Expert", "code")
    world.settle()
    assert routed(world) == {"general": "general-1"}


def readiness(policy: RoutingPolicy | None) -> dict[str, bool]:
    """Return for each Expert of a policy whether it is ready."""
    assert policy is not None
    return {entry.name: entry.is_ready for entry in policy.experts}


def test_posterior_stands_in_until_a_table_knows_every_expert(world: World) -> None:
    assert planned_policy(world).strategy == "Distilled"
    change_table(world, experts=["code"])
    assert planned_policy(world).strategy == "Posterior"
    without_table(world)
    assert planned_policy(world).strategy == "Posterior"


def test_posterior_divides_by_the_temperature_that_was_fitted_with_the_table(world: World) -> None:
    change_table(world, posteriorTemperature=9.5)
    assert planned_policy(world).temperature == 9.5
    without_table(world)
    assert planned_policy(world).temperature == 1.0


def test_a_new_revision_without_a_ready_server_leaves_the_old_one_in_place(world: World) -> None:
    world.kubelet.unready.add("code-2")
    world.change("code", seed=1)
    world.run(until=world.now + timedelta(seconds=30))
    assert routed(world) == {"code": "code-1", "general": "general-1"}
    assert sorted(world.servers()) == ["code-1", "code-2", "general-1"]


def test_an_expert_without_any_ready_server_stays_at_its_revision(world: World) -> None:
    world.change("code", seed=1)
    world.settle()
    assert routed(world) == {"code": "code-2", "general": "general-1"}
    world.kubelet.unready.add("code-2")
    world.run(until=world.now + timedelta(seconds=30))
    assert routed(world) == {"code": "code-2", "general": "general-1"}
    assert readiness(world.policy()) == {"code": False, "general": True}


def test_a_hand_over_in_which_both_revisions_fail_goes_on_with_whichever_comes_back(world: World) -> None:
    """The old revision still has all traffic when both fail: it answers again before the new one does."""
    world.change("code", seed=1)
    while not (
        world.status("code").serving.target == "code-2" or world.status("code").current_revision == "code-2"
    ):
        world.run(until=world.now + timedelta(seconds=0.5))
    world.kubelet.unready |= {"code-1", "code-2"}
    world.run(until=world.now + timedelta(seconds=30))
    assert readiness(world.policy())["code"] is False
    first = routed(world)["code"]
    world.kubelet.unready.discard(first)
    world.run(until=world.now + timedelta(seconds=30))
    assert (routed(world)["code"], readiness(world.policy())["code"]) == (first, True)
    world.kubelet.unready.clear()
    world.settle()
    assert routed(world)["code"] == world.status("code").serving.revision == "code-2"
    assert "code-1" not in world.servers()


def routed(world: World) -> dict[str, str]:
    policy = world.policy()
    assert policy is not None
    return {entry.name: entry.revision for entry in policy.experts}


def test_old_servers_stay_until_every_gateway_has_had_the_policy_for_a_while(world: World) -> None:
    world.pool(routing={"strategy": "Posterior"}, gateway={"replicas": 2})
    world.settle()
    one, _ = world.all("Pod", role="gateway")
    world.kubelet.deaf.add(one["metadata"]["name"])
    world.change("code", seed=1)
    world.run(until=world.now + timedelta(minutes=5))
    assert routed(world)["code"] == "code-2"
    assert world.pool_condition("GatewayReady")[1] == "WaitingForGateway"
    assert sorted(world.servers()) == ["code-1", "code-2", "general-1"]
    world.kubelet.deaf.clear()
    world.run(until=world.now + timedelta(seconds=0.5))
    assert world.pool_condition("GatewayReady")[0] == "True"
    known = world.now
    while "code-1" in world.servers():
        world.run(until=world.now + timedelta(seconds=0.5))
    assert timedelta(seconds=2) <= world.now - known <= timedelta(seconds=5)


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
    before = world.pool_status().routing.table
    world.change("code", seed=1)
    world.settle()
    after = world.pool_status().routing.table
    assert before is not None
    assert after is not None
    assert after.roster != before.roster
    assert len(world.all("Job", role="distill")) == 1


def test_a_fallback_beyond_the_largest_policy_is_left_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moe_operator.planner.membership.MAX_EXPERTS", 1)
    policy = planned_policy(world)
    assert ([entry.name for entry in policy.experts], policy.fallback) == (["code"], None)


def test_limits_and_origins_reach_the_policy_and_restart_no_gateway(world: World) -> None:
    before = world.get("Deployment", "first-pool-gateway")["spec"]
    world.pool(
        routing={"strategy": "Distilled", "fallback": "general"},
        gateway={"limits": {"maxTokens": 7}, "allowedOrigins": ["https://chat.example.org"]},
    )
    world.settle()
    policy = world.policy()
    assert policy is not None
    assert (policy.limits.max_tokens, policy.limits.max_concurrency) == (7, 256)
    assert policy.allowed_origins == ("https://chat.example.org",)
    assert world.get("Deployment", "first-pool-gateway")["spec"] == before


def test_keys_are_mounted_by_a_rollout_of_the_gateway(world: World) -> None:
    world.pool(
        routing={"strategy": "Distilled", "fallback": "general"},
        gateway={"keysFrom": {"secret": "team-gateway-keys"}},
    )
    world.settle()
    assert "team-gateway-keys" in str(world.get("Deployment", "first-pool-gateway")["spec"]["template"])
    assert world.pool_condition("Ready")[0] == "True"


def test_how_experts_are_chosen_is_what_the_pool_says_and_by_default_what_it_was(world: World) -> None:
    before = world.policy()
    assert before is not None
    assert (before.posterior_timeout_seconds, before.stickiness_margin, before.prior) == (2.0, 0.3, {})
    said = {"posteriorTimeoutSeconds": 5, "stickinessMargin": 0, "prior": {"code": 2, "gone": 3}}
    world.pool(routing={"strategy": "Distilled", "fallback": "general"} | said)
    policy = planned_policy(world)
    assert (policy.posterior_timeout_seconds, policy.stickiness_margin) == (5, 0)
    assert policy.prior == {"code": 2}, "an Expert that is not routed has no weight"
