"""Whose Job starts now, beyond what test_lifecycle.py shows."""

from dataclasses import replace

import pytest
from world import START, World

from moe_operator.planner.admission import admit
from moe_operator.state import ObservedJob, ObservedPod, Role


@pytest.fixture
def world() -> World:
    """Two domains and their base whose snapshot Jobs were just made, long after the Experts."""
    world = World()
    world.pool()
    for name in ("code", "mathematics", "general"):
        world.expert(name)
    for name in ("code", "mathematics", "general"):
        world.reconcile("Expert", name)
    world.tick(60)
    return world


def started(world: World, **changes: object) -> list[str]:
    state = replace(world.pool_state(), **changes)  # type: ignore[arg-type]
    return [job.expert for job in admit(state, now=world.now).start]


def changed(world: World, expert: str, **changes: object) -> tuple[ObservedJob, ...]:
    return tuple(
        replace(job, **changes) if job.expert == expert else job  # type: ignore[arg-type]
        for job in world.pool_state().jobs
    )


def test_one_snapshot_starts_and_it_is_a_domains(world: World) -> None:
    assert started(world) == ["code"]


def test_nothing_starts_beside_a_snapshot_that_runs_or_is_still_going_away(world: World) -> None:
    assert started(world, jobs=changed(world, "code", suspended=False, state="Running")) == []
    assert started(world, jobs=changed(world, "code", suspended=False, state="Running", deleting=True)) == []


def test_the_pod_of_a_snapshot_whose_job_is_gone_is_waited_for(world: World) -> None:
    pod = ObservedPod("p", "u", "Running", True, None, START)
    assert started(world, orphan_snapshots=(pod,)) == []
    assert started(world, orphan_snapshots=(replace(pod, phase="Succeeded"),)) == ["code"]


def test_a_paused_expert_is_passed_over(world: World) -> None:
    world.change("code", paused=True)
    assert started(world) == ["mathematics"]


def test_a_base_waits_for_the_snapshots_of_those_that_branch_from_it(world: World) -> None:
    only_base = tuple(job for job in world.pool_state().jobs if job.expert == "general")
    assert started(world, jobs=only_base) == []
    for name in ("code", "mathematics"):
        world.change(name, paused=True)
    assert started(world, jobs=only_base) == ["general"]


def test_a_mixture_waits_a_moment_for_experts_that_come_in_the_same_apply() -> None:
    world = World()
    world.pool()
    world.expert("general")
    world.reconcile("Expert", "general")
    state = world.pool_state()
    early = admit(state, now=world.now)
    assert (early.start, early.wait) == ((), 5.0)
    world.tick(5)
    assert started(world) == ["general"]


def test_one_gang_runs_at_a_time_whatever_the_budget(world: World) -> None:
    pool = world.pool_state().pool
    budget = pool.spec.budget.model_copy(update={"training_jobs": 8})
    roomy = pool.model_copy(update={"spec": pool.spec.model_copy(update={"budget": budget})})
    jobs = tuple(replace(job, role=Role.TRAIN, width=2) for job in world.pool_state().jobs)
    assert len(started(world, pool=roomy, jobs=jobs)) == 1
    assert len(started(world, pool=roomy, jobs=tuple(replace(job, width=1) for job in jobs))) == 3
    first, *others = jobs
    running = (replace(first, suspended=False, state="Running"), *others)
    assert started(world, pool=roomy, jobs=running) == []
