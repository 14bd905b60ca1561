"""Whose Job starts now, beyond what test_lifecycle.py shows."""

import pytest
from world import POOL, World

from moe_formats.resources import labels


@pytest.fixture
def world() -> World:
    """Two domains and their base whose snapshot Jobs were just made, long after the Experts."""
    world = World()
    world.pool()
    world.reconcile("ExpertPool", POOL)  # makes the claim, without which nothing starts
    for name in ("code", "mathematics", "general"):
        world.expert(name)
    for name in ("code", "mathematics", "general"):
        world.reconcile("Expert", name)
    world.tick(60)
    return world


def started(world: World) -> list[str]:
    """Return the Experts whose Jobs the pool starts now."""
    jobs = [world.get("Job", ref.name) for ref in world.plan("ExpertPool", POOL).resume]
    return [job["metadata"]["labels"][labels.EXPERT] for job in jobs]


def job_of(world: World, expert: str) -> str:
    (job,) = world.all("Job", expert=expert)
    return str(job["metadata"]["name"])


def test_one_snapshot_starts_and_it_is_a_domains(world: World) -> None:
    assert started(world) == ["code"]


def test_nothing_starts_beside_a_snapshot_that_runs_or_is_still_going_away(world: World) -> None:
    world.edit("Job", job_of(world, "code"), {"spec": {"suspend": False}})
    assert started(world) == []
    world.edit("Job", job_of(world, "code"), {"metadata": {"deletionTimestamp": "2026-11-21T12:02:00Z"}})
    assert started(world) == []


def test_the_pod_of_a_snapshot_whose_job_is_gone_is_waited_for(world: World) -> None:
    world.edit("Job", job_of(world, "code"), {"spec": {"suspend": False}})
    world.tick(0)
    world.delete("Job", job_of(world, "code"))
    assert started(world) == []
    (pod,) = world.all("Pod")
    world.edit("Pod", pod["metadata"]["name"], {"status": {"phase": "Succeeded"}})
    assert started(world) == ["mathematics"]


def test_a_paused_expert_is_passed_over(world: World) -> None:
    world.change("code", paused=True)
    assert started(world) == ["mathematics"]


def test_a_base_waits_for_the_snapshots_of_those_that_branch_from_it(world: World) -> None:
    for name in ("code", "mathematics"):
        world.delete("Job", job_of(world, name))
    assert started(world) == []
    for name in ("code", "mathematics"):
        world.change(name, paused=True)
    assert started(world) == ["general"]


def test_a_mixture_waits_a_moment_for_experts_that_come_in_the_same_apply() -> None:
    world = World()
    world.pool()
    world.reconcile("ExpertPool", POOL)  # makes the claim, without which nothing starts
    world.expert("general")
    world.reconcile("Expert", "general")
    early = world.plan("ExpertPool", POOL)
    assert (early.resume, early.requeue) == ((), 5.0)
    world.tick(5)
    assert started(world) == ["general"]


def test_one_gang_runs_at_a_time_whatever_the_budget(world: World) -> None:
    world.pool(budget={"trainingJobs": 8})
    jobs = [job_of(world, name) for name in ("code", "mathematics", "general")]
    for job in jobs:
        world.edit("Job", job, {"metadata": {"labels": {labels.ROLE: "train"}}, "spec": {"parallelism": 2}})
    assert len(started(world)) == 1
    for job in jobs:
        world.edit("Job", job, {"spec": {"parallelism": 1}})
    assert len(started(world)) == 3
    for job in jobs:
        world.edit("Job", job, {"spec": {"parallelism": 2}})
    world.edit("Job", jobs[0], {"spec": {"suspend": False}})
    assert started(world) == []
