"""Which revision serves, on which servers: the handshake between an Expert and its pool, step by step."""

from dataclasses import replace
from datetime import timedelta

import pytest
from world import POOL, World

from moe_operator.planner.serving import finished_servers, named_revisions


@pytest.fixture
def world(served: World) -> World:
    return served.fork()


def uids(world: World) -> dict[str, str]:
    return {name: server.uid for name, server in world.servers().items()}


def step(world: World) -> None:
    for key in world.subjects():
        world.reconcile(*key)
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
    assert world.servers()["code-1"].desired_replicas == 3
    deployment = world.objects["Deployment", "code-1"]
    deployment["spec"]["replicas"] = 7
    world.settle()
    assert deployment["spec"]["replicas"] == 3
    world.change("code", serving={"replicas": 3, "temperature": 0.5})
    world.settle()
    assert world.objects["Deployment", "code-1"]["spec"]["replicas"] == 3


def test_a_deployment_starts_with_the_replicas_that_are_wanted_then() -> None:
    world = World()
    world.pool(gateway={"replicas": 2})
    world.expert("general", serving={"replicas": 0})
<<<<<<< HEAD
    world.expert("code", serving={"replicas": 3})
    seen: dict[str, int] = {}
    while world.status("code").serving is None or world.status("code").serving.revision is None:
        step(world)
        for (kind, name), manifest in world.objects.items():
            if kind == "Deployment":
                seen.setdefault(name, manifest["spec"]["replicas"])
    assert seen == {"general-1": 0, "code-1": 3, "first-pool-gateway": 2}
=======
    world.settle()
    assert world.status("general").current_revision == "general-1"
    assert world.servers() == {}
    world.change("general", serving={"replicas": 2})
    world.settle()
    assert world.servers()["general-1"].desired_replicas == 2
    world.change("general", serving={"replicas": 0})
    world.settle()
    assert world.servers()["general-1"].desired_replicas == 0


def test_scaling_to_zero_while_another_revision_takes_over_leaves_no_server_running(world: World) -> None:
    world.change("code", seed=1, revision="code-1")
    world.settle()
    assert world.status("code").current_revision == "code-2"
    assert sorted(world.servers()) == ["code-1", "general-1"]
    world.change("code", revision=None, serving={"replicas": 0})
    world.settle()
    assert {name: server.desired_replicas for name, server in world.servers().items()}.get("code-1", 0) == 0
    assert [entry.name for entry in world.policy().experts] == ["general"]  # type: ignore[union-attr]


def test_the_server_of_the_last_good_revision_stays_through_a_restart_until_the_next_one_serves(
    world: World,
) -> None:
    world.change("code", seed=1, revision="code-1")
    world.settle()
    world.change("code", revision=None)
    world.reconcile("Expert", "code")
    assert world.status("code").serving.target == "code-2"
    world.ready["code-1"] = 0
    for _ in range(4):
        world.reconcile("ExpertPool", POOL)
        world.reported = {pod: world.policy().digest() for pod in world.reported}  # type: ignore[union-attr]
        world.now += timedelta(minutes=1)
    assert "code-1" in world.servers()
    world.settle()
    assert sorted(world.servers()) == ["code-2", "general-1"]


def test_an_edited_label_does_not_let_a_server_go(world: World) -> None:
    state, later = world.pool_state(), world.now + timedelta(minutes=1)
    edited = replace(state.servers["code-1"], revision="another")
    servers = {server.revision: server for server in (edited, state.servers["general-1"])}
    assert finished_servers(replace(state, servers=servers), world.policy(), now=later) == []
>>>>>>> operator-words
