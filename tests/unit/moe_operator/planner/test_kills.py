"""The operator is killed between any two writes, twice, and by chance: nothing is lost, nothing is doubled.

A kill drops the rest of a plan. World checks at every write that no Job or revision is doubled, that no
status is decided on an older version, and that nothing is deleted that requests still go to.
"""

import random
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World


def begin() -> World:
    """Apply a base and a domain."""
    world = World()
    world.pool()
    world.expert("general")
    world.expert("code", targets={"gain": 0.1})
    return world


def renew(world: World) -> None:
    """Give the domain other data, and ask for it to be read."""
    world.data["code"] = 1
    world.change("code", runID="second")


@pytest.fixture(scope="module")
def first() -> World:
    """What applying ends in."""
    world = begin()
    world.history = []
    world.settle()
    return world


@pytest.fixture(scope="module")
def second(first: World) -> World:
    """What new data ends in."""
    world = first.fork()
    world.history = []
    renew(world)
    world.settle()
    return world


@pytest.fixture(scope="module")
def proposed(first: World) -> World:
    """What new data ends in where a person has to approve it, and undoes it."""
    world = first.fork()
    world.history = []
    world.pool(lifecycle={"overrides": {"refresh": "Propose"}})
    world.data["code"] = 1
    world.change("code", data={**world.get("Expert", "code")["spec"]["data"], "refresh": "hourly"})
    world.now += timedelta(hours=1)
    world.settle()
    (name,) = world.proposals()
    world.history = []
    world.approve(name)
    world.settle()
    return world


@pytest.fixture(scope="module")
def undone(proposed: World) -> World:
    """What undoing it ends in."""
    world = proposed.fork()
    world.history = []
    (name,) = world.proposals()
    world.undo(name)
    world.settle()
    return world


@pytest.fixture(scope="module")
def rolled_back(second: World) -> World:
    """What going back to the first revision ends in."""
    world = second.fork()
    world.propose("back", "code", "RollBack", revision="code-1")
    world.settle()
    world.history = []
    world.approve("back")
    world.settle()
    return world


@pytest.fixture(scope="module")
def restored(rolled_back: World) -> World:
    """What taking that back ends in."""
    world = rolled_back.fork()
    world.history = []
    world.undo("back")
    world.settle()
    return world


@pytest.fixture(scope="module")
def rebased(first: World) -> World:
    """What a newer base ends in that is followed by itself."""
    world = first.fork()
    world.change("code", base={"expert": "general", "follow": "Auto"})
    world.settle()
    world.history = []
    world.change("general", seed=9)
    world.settle()
    assert world.revision("code-2").spec.cause == "Rebase"
    return world


@pytest.fixture(scope="module")
def respecialized(first: World) -> World:
    """What drift ends in that is trained away by itself."""
    world = first.fork()
    world.pool(lifecycle={"overrides": {"respecialize": "Auto"}})
    world.change("code", data={**world.get("Expert", "code")["spec"]["data"], "refresh": "hourly"})
    world.trainer.drift = {"code-3": 0.1}
    for version in (1, 2):
        world.history = []
        world.data["code"] = version
        world.now += timedelta(hours=1)
        world.settle()
    assert world.revision("code-4").spec.cause == "Drift"
    return world


COURSES = ["first", "second", "proposed", "undone", "rolled_back", "restored", "rebased", "respecialized"]


@pytest.mark.parametrize("course", COURSES)
def test_a_kill_after_any_write_ends_in_the_same_state(course: str, request: pytest.FixtureRequest) -> None:
    unbroken: World = request.getfixturevalue(course)
    assert unbroken.history
    # Every second write of each course keeps this quick; chance picks from all of them below.
    for number, left_behind in list(enumerate(unbroken.history))[::2]:
        left_behind.settle()
        assert left_behind.end_state() == unbroken.end_state(), f"killed after write {number + 1}"


def test_two_kills_end_in_the_same_state(second: World) -> None:
    chance = random.Random(3)
    for _ in range(5):
        world = begin()
        world.kills = sorted(chance.sample(range(second.writes), 2))
        kills = list(world.kills)
        world.settle()
        renew(world)
        world.settle()
        assert world.end_state() == second.end_state(), f"killed after writes {kills}"


def test_an_operator_that_is_killed_after_every_write_still_gets_there(second: World) -> None:
    world = begin()
    one_write_at_a_time(world)
    renew(world)
    one_write_at_a_time(world)
    assert world.end_state() == second.end_state()


def one_write_at_a_time(world: World) -> None:
    """Kill the operator after the first write of every plan, until nothing is written any more."""
    quiet = 0
    for _ in range(3000):
        before = world.writes
        for key in world.subjects():
            world.kills = [world.writes + 1]
            world.reconcile(*key)
        world.kills = []
        quiet = quiet + 1 if not world.tick(1.0) and world.writes == before else 0
        if quiet > 20:
            return
    raise AssertionError("not settled")


ACTS = st.sampled_from(
    [
        "reconcile",
        "tick",
        "kill",
        "seed 1",
        "seed 2",
        "data",
        "pause",
        "resume",
        "delete job",
        "delete server",
        "delete policy",
        "fail",
        "scale",
    ]
)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.tuples(ACTS, st.integers(0, 10_000)), max_size=60))
def test_whatever_happens_it_settles_where_a_calm_world_would(acts: list[tuple[str, int]]) -> None:
    world = World()
    world.pool()
    world.expert("general")
    world.expert("code")
    for act, number in acts:
        perform(world, act, number)
    world.trainer.fate.clear()
    world.kills = []
    world.pool()
    world.change("code", paused=False, seed=1, runID="", serving={"replicas": 1})
    world.settle()
    status = world.status("code")
    assert status.phase == "Serving"
    current = world.revision(status.current_revision)
    assert current.spec.inputs.seed == 1
    assert status.serving.revision == status.current_revision
    assert sorted(world.servers()) == sorted(
        [status.current_revision, world.status("general").current_revision]
    )
    for key in world.subjects():
        plan = world.plan(*key)
        assert (plan.create, plan.apply, plan.resume, plan.delete, plan.statuses) == ((),) * 5


def perform(world: World, act: str, number: int) -> None:
    """Do one thing to the world."""
    keys = world.subjects()
    if act == "reconcile":
        world.reconcile(*keys[number % len(keys)])
    elif act == "kill":
        world.kills = [world.writes + number % 3]
        world.reconcile(*keys[number % len(keys)])
        world.kills = []
    elif act == "tick":
        for key in keys:
            world.reconcile(*key)
        world.tick(1.0)
    elif act.startswith("seed"):
        world.change("code", seed=int(act[-1]))
    elif act == "data":
        world.data["code"] = world.data.get("code", 0) + 1
        world.change("code", runID=f"run-{number}")
    elif act in ("pause", "resume"):
        world.change("code", paused=act == "pause")
    elif act == "scale":
        world.change("code", serving={"replicas": number % 3})
    elif act == "fail":
        world.trainer.fate.update({f"code-{number % 4}-a{attempt}": 1 for attempt in (1, 2)})
    else:
        delete_one(world, {"delete job": "Job", "delete server": "Deployment"}.get(act, "ConfigMap"), number)


def delete_one(world: World, kind: str, number: int) -> None:
    names = [item["metadata"]["name"] for item in world.all(kind)]
    if names:
        world.delete(kind, names[number % len(names)])
