"""Which revision serves, on which servers: the handshake between an Expert and its pool, step by step."""

from datetime import timedelta
from typing import Any

import pytest
from world import POOL, World

from moe_formats.resources import labels
from moe_operator.planner.serving import named_revisions


@pytest.fixture
def world(served: World) -> World:
    return served.fork()


def uids(world: World) -> dict[str, str]:
    return {
        item["metadata"]["name"]: item["metadata"]["uid"] for item in world.all("Deployment", role="server")
    }


def unpin(world: World, **spec: Any) -> None:
    given = {name: value for name, value in world.get("Expert", "code")["spec"].items() if name != "revision"}
    world.put("Expert", "code", {**given, **spec})


def routed(world: World) -> dict[str, str]:
    policy = world.policy()
    assert policy is not None
    return {entry.name: entry.revision for entry in policy.experts if entry.is_ready}


def step(world: World) -> None:
    world.reconcile_all()
    world.tick()


def test_a_hand_over_goes_through_its_steps_in_order(world: World) -> None:
    world.change("code", seed=1)
    seen: list[tuple[str | None, str | None, str | None]] = []
    made: dict[str, set[str]] = {}
    while not seen or seen[-1] != ("code-2", None, "code-2"):
        step(world)
        serving = world.status("code").serving
        state = (serving.target, serving.starting, serving.revision)
        if not seen or seen[-1] != state:
            seen.append(state)
        for name, uid in uids(world).items():
            made.setdefault(name, set()).add(uid)
        assert serving.revision in world.servers(), "what serves has its servers all along"
    assert seen == [
        ("code-1", None, "code-1"),
        ("code-1", "code-2", "code-1"),
        ("code-2", None, "code-1"),
        ("code-2", None, "code-2"),
    ]
    assert {name: len(found) for name, found in made.items()} == {"general-1": 1, "code-1": 1, "code-2": 1}
    world.settle()
    assert sorted(world.servers()) == ["code-2", "general-1"]


def test_servers_are_made_only_for_revisions_that_the_status_names_already(world: World) -> None:
    world.change("code", seed=1)
    while "code-2" not in world.servers():
        before = named_revisions(world.expert_state("code").expert)
        step(world)
    assert "code-2" in before


def test_a_revision_that_does_not_take_over_leaves_no_servers(world: World) -> None:
    world.change("code", seed=1)
    while world.status("code").serving.starting is None:
        step(world)
    world.change("code", seed=0)
    world.settle()
    assert sorted(world.servers()) == ["code-1", "general-1"]
    assert world.status("code").serving.starting is None


def test_replicas_are_scaled_and_never_applied(world: World) -> None:
    world.change("code", serving={"replicas": 3})
    world.settle()
    assert world.servers()["code-1"] == 3
    world.edit("Deployment", "code-1", {"spec": {"replicas": 7}})
    world.settle()
    assert world.servers()["code-1"] == 3
    world.change("code", serving={"replicas": 3, "temperature": 0.5})
    world.settle()
    assert world.servers()["code-1"] == 3


def test_a_deployment_starts_with_the_replicas_that_are_wanted_then() -> None:
    world = World()
    world.pool(gateway={"replicas": 2})
    world.expert("general", serving={"replicas": 0})
    world.expert("code", serving={"replicas": 3})
    seen: dict[str, int] = {}
    while world.status("code").serving is None or world.status("code").serving.revision is None:
        step(world)
        for item in world.all("Deployment"):
            seen.setdefault(item["metadata"]["name"], item["spec"]["replicas"])
    assert seen == {"general-1": 0, "code-1": 3, "first-pool-gateway": 2}


def test_scaling_to_zero_while_another_revision_takes_over_leaves_no_server_running(world: World) -> None:
    world.change("code", seed=1, revision="code-1")
    world.settle()
    assert world.status("code").current_revision == "code-2"
    assert sorted(world.servers()) == ["code-1", "general-1"]
    unpin(world, serving={"replicas": 0})
    world.settle()
    assert world.servers().get("code-1", 0) == 0
    assert routed(world) == {"general": "general-1"}


def test_the_server_of_the_last_good_revision_stays_through_a_restart_until_the_next_one_serves(
    world: World,
) -> None:
    world.change("code", seed=1, revision="code-1")
    world.settle()
    world.kubelet.unready.add("code-2")
    unpin(world)
    world.run(until=world.now + timedelta(seconds=5))
    assert world.status("code").serving.target == "code-2"
    world.kubelet.unready.add("code-1")
    world.run(until=world.now + timedelta(minutes=5))
    assert routed(world) == {"general": "general-1"}
    assert "code-1" in world.servers()
    world.kubelet.unready.clear()
    world.settle()
    assert sorted(world.servers()) == ["code-2", "general-1"]


def test_an_edited_label_does_not_let_a_server_go(world: World) -> None:
    world.edit("Deployment", "code-1", {"metadata": {"labels": {labels.REVISION: "another"}}})
    world.reconcile("ExpertPool", POOL)
    assert sorted(world.servers()) == ["code-1", "general-1"]


def test_a_pool_with_an_expert_at_zero_settles(world: World) -> None:
    world.change("code", serving={"replicas": 0})
    world.settle()
    assert world.plan("ExpertPool", POOL).requeue is None
