"""Which revision serves, on which servers: the handshake between an Expert and its pool, step by step."""

import pytest
from world import World

from moe_operator.planner.serving import named_revisions


@pytest.fixture
def world(served: World) -> World:
    return served.fork()


def uids(world: World) -> dict[str, str]:
    return {
        item["metadata"]["name"]: item["metadata"]["uid"] for item in world.all("Deployment", role="server")
    }


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
