"""With a queue of Kueue: the pool's own order holds, Kueue decides when a Job starts, and the status says so."""

from datetime import timedelta

import pytest
from world import World

from moe_formats.resources import labels
from moe_operator.state import Manifest


@pytest.fixture
def world() -> World:
    world = World()
    world.config = world.config.model_copy(update={"queue": "research"})
    world.pool(budget={"trainingJobs": 1})
    for name in ("code", "mathematics", "general"):
        world.expert(name)
    return world


def queued(world: World) -> list[Manifest]:
    """Return the unfinished Jobs that are in the queue, whether Kueue has admitted them or not."""
    jobs = [job for job in world.all("Job") if labels.QUEUE in job["metadata"]["labels"]]
    return [job for job in jobs if not (job.get("status") or {}).get("completionTime")]


def admit(world: World, *roles: str) -> None:
    """Start what is in the queue, as Kueue does; only Jobs of some roles if any are named."""
    for job in queued(world):
        if job["spec"]["suspend"] and (not roles or job["metadata"]["labels"][labels.ROLE] in roles):
            world.edit("Job", job["metadata"]["name"], {"spec": {"suspend": False}})


def wait(world: World, seconds: float = 10) -> None:
    world.run(until=world.now + timedelta(seconds=seconds))


def test_snapshots_enter_the_queue_one_at_a_time_domains_first_and_paused_ones_never(world: World) -> None:
    world.change("mathematics", paused=True)
    order = []
    for _ in range(12):
        wait(world)
        snapshots = [job for job in queued(world) if job["metadata"]["labels"][labels.ROLE] == "snapshot"]
        assert len(snapshots) <= 1
        for job in snapshots:
            assert job["metadata"]["labels"][labels.QUEUE] == "research"
            order.append(job["metadata"]["labels"][labels.EXPERT])
        admit(world)
    assert order == ["code", "general"]


def test_training_jobs_enter_the_queue_together_and_everything_ends_well(world: World) -> None:
    most = 0
    for _ in range(60):
        wait(world)
        training = [job for job in queued(world) if job["metadata"]["labels"][labels.ROLE] == "train"]
        most = max(most, len(training))
        admit(world)
    assert most == 2, "the pool's own budget is Kueue's to decide"
    assert {world.status(name).phase for name in ("code", "mathematics", "general")} == {"Serving"}


def test_what_waits_for_the_queue_says_so(world: World) -> None:
    wait(world, 30)
    assert "waits for queue research" in world.condition("code", "DataReady")[2]
    assert "a pool takes one at a time" in world.condition("mathematics", "DataReady")[2]
    for _ in range(8):
        admit(world, "snapshot")
        wait(world)
    assert "waits for queue research" in world.condition("general", "Trained")[2]


def test_progress_and_eta_stop_while_a_job_is_evicted(world: World) -> None:
    world.kubelet.durations["train"] = timedelta(hours=1)
    for _ in range(12):
        wait(world)
        admit(world)
    wait(world)
    training = world.status("general").training.model_copy(update={"summary": "62%", "eta": "14m"})
    live = world.get("Expert", "general")
    status = {
        **live["status"],
        "training": training.model_dump(by_alias=True, mode="json", exclude_none=True),
    }
    world.server.write_status(("Expert", "default", "general"), status)
    world.edit("Job", "general-1-a1", {"spec": {"suspend": True}})
    wait(world)
    training = world.status("general").training
    assert (training.summary, training.eta) == ("queued", "")
    assert "waits for queue research" in world.condition("general", "Trained")[2]
    assert world.revision("general-1").status.attempts == 1
