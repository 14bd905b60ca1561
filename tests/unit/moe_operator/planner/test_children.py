"""The Service of a gang is there while training spans nodes, and not otherwise."""

from dataclasses import replace

import pytest
from world import World

from moe_operator.builders.gang import build_gang_service
from moe_operator.planner.children import missing_gang, superfluous_gang
from moe_operator.state import ExpertState


@pytest.fixture
def world() -> World:
    world = World()
    world.pool()
    world.expert("code")
    return world


def on_nodes(world: World, nodes: int) -> ExpertState:
    """Return the Expert's state with training on some nodes, beyond what the API accepts so far."""
    state = world.expert_state("code")
    training = state.expert.spec.training
    resources = training.resources.model_copy(update={"nodes": nodes})
    spec = state.expert.spec.model_copy(
        update={"training": training.model_copy(update={"resources": resources})}
    )
    return replace(state, expert=state.expert.model_copy(update={"spec": spec}))


def test_the_service_is_asked_for_until_it_is_as_it_should_be(world: World) -> None:
    state = on_nodes(world, 2)
    (wanted,) = missing_gang(replace(state, live={}))
    assert wanted == build_gang_service(expert=state.expert)
    assert wanted["spec"]["publishNotReadyAddresses"] is True
    key = ("Service", "code-gang")
    assert missing_gang(replace(state, live={key: wanted})) == ()
    edited = {**wanted, "spec": {**wanted["spec"], "publishNotReadyAddresses": False}}
    assert missing_gang(replace(state, live={key: edited})) == (wanted,)
    assert superfluous_gang(replace(state, live={key: wanted})) == ()


def test_the_service_goes_when_training_is_on_one_node_again(world: World) -> None:
    state = on_nodes(world, 2)
    (live,) = missing_gang(replace(state, live={}))
    live["metadata"]["uid"] = "service-uid"
    state = replace(on_nodes(world, 1), live={("Service", "code-gang"): live})
    assert missing_gang(state) == ()
    (ref,) = superfluous_gang(state)
    assert (ref.kind, ref.name, ref.uid) == ("Service", "code-gang", "service-uid")
    assert superfluous_gang(replace(state, live={})) == ()
