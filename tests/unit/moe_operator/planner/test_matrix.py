"""When the full matrix is filled, with what, and that a settled pool pays nothing."""

from datetime import timedelta

import pytest
from world import POOL, World
from world.manifests import job_config

from moe_formats.job_config import MatrixJob
from moe_formats.job_report import Failure

DOMAINS = ("code", "law")


@pytest.fixture(scope="module")
def settled() -> World:
    world = World()
    world.pool()
    for name in (*DOMAINS, "general"):
        world.expert(name)
    world.settle()
    return world


@pytest.fixture
def world(settled: World) -> World:
    """A world of a test's own."""
    return settled.fork()


def schedule(world: World, value: str) -> None:
    world.pool(evaluation={"schedule": value})
    world.settle()


def matrix_jobs(world: World) -> list[str]:
    return [name for name in world.created if name.startswith(f"{POOL}-matrix-")]


@pytest.mark.parametrize("value", ["never", "newWindow"])
def test_no_schedule_fills_no_matrix(world: World, value: str) -> None:
    schedule(world, value)
    world.run(world.now + timedelta(days=8))
    assert matrix_jobs(world) == []
    assert world.pool_status().matrix is None


def test_every_current_revision_is_measured_on_the_anchor_of_every_domain(world: World) -> None:
    schedule(world, "daily")
    (name,) = matrix_jobs(world)
    job = job_config(world.get("Job", name))
    assert isinstance(job, MatrixJob)
    assert [model.revision for model in job.models] == ["code-1", "general-1", "law-1"]
    assert [(item.domain, item.expert) for item in job.suite] == [("code", "code"), ("law", "law")]
    assert all(model.ancestry == () for model in job.models)
    assert job.trained_on == ("snapshots/code-0", "snapshots/general-0", "snapshots/law-0")
    status = world.pool_status().matrix
    assert (status.revisions, status.anchors, status.cells) == (3, 2, 6)
    assert status.path == "matrices/x/matrix.json" and status.digest and status.time


def test_it_is_filled_again_only_when_due_and_only_if_something_is_new(world: World) -> None:
    schedule(world, "daily")
    writes = world.writes
    world.run(world.now + timedelta(days=3))
    assert world.writes == writes and len(matrix_jobs(world)) == 1
    before = world.pool_status().matrix
    world.run(world.now + timedelta(hours=1))
    world.change("code", seed=3)
    world.settle()
    assert len(matrix_jobs(world)) == 2  # The last filling is more than a day ago.
    assert world.pool_status().matrix.digest != before.digest
    world.change("code", seed=4)
    world.settle()
    world.change("law", seed=4)
    world.settle()
    assert len(matrix_jobs(world)) == 2
    world.run(world.now + timedelta(days=1))
    assert len(matrix_jobs(world)) == 3
    assert len(world.all("Job", role="matrix")) == 1


def test_a_matrix_that_cannot_be_filled_says_so_and_keeps_the_last_one(world: World) -> None:
    schedule(world, "daily")
    before = world.pool_status().matrix
    world.run(world.now + timedelta(days=1))
    world.change("code", seed=3)
    for _ in range(300):
        if len(matrix_jobs(world)) == 2:
            break
        world.run(world.now + timedelta(seconds=1))
    world.trainer.fate[matrix_jobs(world)[-1]] = Failure(reason="ArtefactCorrupt", message="a window is gone")
    world.settle()
    after = world.pool_status().matrix
    assert (after.path, after.digest) == (before.path, before.digest)
    assert after.message == "the newest could not be filled: a window is gone"
    created = len(world.created)
    world.run(world.now + timedelta(days=3))
    assert len(world.created) == created


def test_it_waits_for_the_pool_to_go_on_and_counts_towards_the_budget(world: World) -> None:
    world.pool(evaluation={"schedule": "weekly"}, paused=True)
    world.settle()
    assert matrix_jobs(world) == []
    world.pool(evaluation={"schedule": "weekly"}, budget={"trainingJobs": 1})
    world.settle()
    assert world.pool_status().matrix.cells == 6


def test_a_kill_after_any_write_fills_nothing_twice_and_loses_nothing(world: World) -> None:
    world.history = []
    schedule(world, "daily")
    filled = world.pool_status().matrix
    assert len(world.history) >= 3
    for number, left_behind in enumerate(world.history):
        left_behind.settle()
        found = left_behind.pool_status().matrix
        assert found.model_copy(update={"time": filled.time}) == filled, f"killed after write {number + 1}"
        assert len(matrix_jobs(left_behind)) == 1
