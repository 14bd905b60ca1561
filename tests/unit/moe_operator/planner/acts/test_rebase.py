"""A rebase promises what the base gained on the Expert's own domain, where that was measured."""

from math import log

import pytest
from world import World

from moe_formats.resources.expert_proposal import Effect
from moe_formats.resources.lifecycle import Act
from moe_operator.planner.acts import ACTS
from moe_operator.planner.acts.policy import Found
from moe_operator.planner.conditions import Why
from moe_operator.planner.proposals import members
from moe_operator.state import Key, Member, PoolState

POLICY = ACTS[Act.REBASE]


@pytest.fixture(scope="module")
def followed() -> World:
    """A pool whose base has a newer revision than the one that code starts from."""
    world = World()
    world.pool()
    world.expert("general")
    world.expert("code")
    world.settle()
    world.change("code", base={"expert": "general", "follow": "Propose"})
    world.change("general", seed=2)
    world.settle()
    return world


def member(world: World, name: str = "code") -> Member:
    state = world.operator.gather(Key("ExpertPool", "default", "first-pool"))
    assert isinstance(state, PoolState)
    return next(item for item in members(state) if item.expert.metadata.name == name)


def rows(world: World, **bits: float) -> World:
    """Measure the base's revisions, by name, on the text of code."""
    world = world.fork()
    for name, value in bits.items():
        name = name.replace("_", "-")
        evidence = {**world.get("ExpertRevision", name)["status"]["evidence"], "row": {"code": value}}
        world.edit("ExpertRevision", name, {"status": {"evidence": evidence}})
    return world


@pytest.mark.parametrize(
    ("new", "words", "lower", "upper"),
    [(1.8, "10.0% fewer", 2 * log(0.9), 0.005), (2.2, "10.0% more", log(1.1) - 0.005, log(1.1))],
)
def test_it_promises_what_the_base_gained(
    followed: World, new: float, words: str, lower: float, upper: float
) -> None:
    world = rows(followed, general_1=2.0, general_2=new)
    found = POLICY.trigger(member(world), world.now)
    assert isinstance(found, Found) and isinstance(found.expected, Effect)
    assert f"needs {words} bits per byte than general-1" in found.summary
    promised = found.expected.interval
    assert (promised.value, promised.lower, promised.upper) == pytest.approx(
        (log(new / 2), lower, upper), abs=1e-4
    )


def test_without_both_measurements_nothing_is_promised(followed: World) -> None:
    found = POLICY.trigger(member(followed), followed.now)
    assert isinstance(found, Found)
    assert found.expected == "the two revisions of the base were not both measured on domain code"


def test_an_expert_from_a_preset_cannot_be_rebased(followed: World) -> None:
    world = followed.fork()
    world.propose("mine", "general", "Rebase")
    proposal = world.proposal("mine")
    found = POLICY.asked(member(world, "general"), proposal.spec, world.now)
    assert isinstance(found, Why)
    assert "does not start from an Expert" in found.message
