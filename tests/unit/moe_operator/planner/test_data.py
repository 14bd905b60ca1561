"""When the sources are read, by which Job, and what the Expert's status keeps of it."""

import pytest
from world import World


@pytest.fixture
def world() -> World:
    """A pool with one Expert that branches from nobody, before anything was done about it."""
    world = World()
    world.pool()
    world.expert("code", base={"preset": "tiny"})
    return world


def snapshot_jobs(world: World) -> list[str]:
    return [name for name in world.created if "-snapshot-" in name]


def data_ready(world: World) -> tuple[str, str, str]:
    return world.condition("code", "DataReady")


def test_the_job_of_another_question_goes_before_a_new_one_is_made(world: World) -> None:
    world.reconcile("Expert", "code")
    (old,) = snapshot_jobs(world)
    world.change("code", runID="again")
    plan = world.reconcile("Expert", "code")
    assert plan is not None
    assert (plan.create, [ref.name for ref in plan.delete]) == ((), [old])
    world.settle()
    assert len(snapshot_jobs(world)) == 2
    assert world.status("code").phase == "Serving"
