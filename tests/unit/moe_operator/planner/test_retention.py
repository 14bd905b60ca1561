"""Which Jobs are kept, for their logs and to count attempts, and which go."""

from datetime import timedelta

import pytest
from world import World


@pytest.fixture
def world(served: World) -> World:
    return served.fork()


def jobs(world: World, expert: str = "code") -> list[str]:
    """Return the Jobs that work, or worked, for an Expert; snapshots by number only."""
    made = [name for name in world.created if "-snapshot-" in name]
    names = [job["metadata"]["name"] for job in world.all("Job", expert=expert)]
    return sorted(f"snapshot {made.index(name) + 1}" if name in made else name for name in names)


def test_the_last_jobs_of_each_kind_stay(world: World) -> None:
    assert jobs(world) == ["code-1-a1", "code-1-e1", "snapshot 1"]
    world.change("code", seed=1)
    world.settle()
    assert jobs(world) == ["code-2-a1", "code-2-e1", "snapshot 1"]
    world.change("code", runID="again")
    world.settle()
    assert jobs(world) == ["code-3-a1", "code-3-e1", "snapshot 3"]


def test_failed_attempts_stay_until_the_work_is_done(world: World) -> None:
    world.trainer.fate.update({"code-2-a1": 1, "code-2-a2": 1})
    world.change("code", seed=1)
    world.settle()
    assert jobs(world) == ["code-2-a1", "code-2-a2", "code-2-a3", "code-2-e1", "snapshot 1"]
    world.change("code", seed=2)
    world.settle()
    assert jobs(world) == ["code-3-a1", "code-3-e1", "snapshot 1"]


def test_a_job_of_a_superseded_revision_goes_at_once(world: World) -> None:
    world.kubelet.durations["train"] = timedelta(hours=1)
    world.change("code", seed=1)
    world.run(until=world.now + timedelta(minutes=5))
    assert "code-2-a1" in jobs(world)
    world.change("code", seed=2)
    world.run(until=world.now + timedelta(minutes=5))
    assert jobs(world) == ["code-3-a1", "snapshot 1"]


def test_while_the_data_are_read_again_no_job_of_a_revision_is_given_up(world: World) -> None:
    world.kubelet.durations["snapshot"] = timedelta(minutes=10)
    world.change("code", runID="again")
    world.run(until=world.now + timedelta(minutes=5))
    assert jobs(world) == ["code-1-a1", "code-1-e1", "snapshot 1", "snapshot 3"]


def test_the_jobs_of_an_expert_go_with_it(world: World) -> None:
    world.delete("Expert", "code")
    world.settle()
    assert jobs(world) == []
    assert jobs(world, "general") != []


def test_only_the_table_of_the_newest_roster_keeps_its_job(world: World) -> None:
    for seed in (1, 2):
        world.change("code", seed=seed)
        world.settle()
    assert len(world.all("Job", role="distill")) == 1
