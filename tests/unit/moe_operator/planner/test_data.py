"""When the sources are read, by which Job, and what the Expert's status keeps of it."""

from datetime import timedelta

import pytest
from world import START, World

from moe_formats.job_report import Failure, Unreadable
from moe_formats.resources.reasons import Reason


@pytest.fixture
def world() -> World:
    """A pool with one Expert that branches from nobody, before anything was done about it."""
    world = World()
    world.pool()
    world.expert("code", base={"preset": "tiny"})
    return world


def sources(world: World) -> dict[str, object]:
    return dict(world.get("Expert", "code")["spec"]["data"])


def snapshot_jobs(world: World) -> list[str]:
    return [name for name in world.created if "-snapshot-" in name]


def data_ready(world: World) -> tuple[str, str] | None:
    found = [item for item in world.status("code").conditions if item.type == "DataReady"]
    return (found[0].status, found[0].reason) if found else None


def test_a_snapshot_is_queued_then_running_then_taken(world: World) -> None:
    assert world.course(data_ready) == [
        None,
        ("False", "WaitingForData"),
        ("False", "SnapshotRunning"),
        ("True", "SnapshotTaken"),
    ]


def test_the_status_keeps_what_the_snapshot_holds(world: World) -> None:
    world.settle()
    kept = world.status("code").snapshot
    assert [kept.job] == snapshot_jobs(world)
    assert (kept.documents, kept.train_bytes, kept.dropped) == (1000, 100_000, {"length": 3})
    assert (kept.anchor.clusters, kept.newest) == (30, None)
    assert world.condition("code", "DataReady")[2] == (
        "1000 documents, 100000 bytes to train on; 30 clusters held out in the newest window; dropped: 3 length"
    )


def test_what_the_bases_tokenizer_changes_is_said_before_training(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Unreadable(segments=90, of=100, why="it puts text into Unicode's form NFC")
    made = world.trainer._snapshot
    monkeypatch.setattr(
        world.trainer, "_snapshot", lambda job: made(job).model_copy(update={"unreadable": found})
    )
    world.settle()
    assert world.status("code").snapshot.unreadable == found
    assert "90 of 100 held-out segments cannot be measured" in world.condition("code", "DataReady")[2]
    assert "it puts text into Unicode's form NFC" in world.condition("code", "DataReady")[2]


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


@pytest.mark.parametrize(
    ("refresh", "elapsed", "read"),
    [
        ("never", timedelta(days=30), 1),
        ("hourly", timedelta(minutes=59), 1),
        ("hourly", timedelta(minutes=61), 2),
        ("daily", timedelta(hours=23), 1),
        ("daily", timedelta(hours=25), 2),
        ("weekly", timedelta(days=6), 1),
        ("weekly", timedelta(days=15), 3),
    ],
)
def test_the_sources_are_read_once_per_period(
    world: World, refresh: str, elapsed: timedelta, read: int
) -> None:
    world.change("code", data=sources(world) | {"refresh": refresh})
    world.run(until=START + elapsed)
    assert len(snapshot_jobs(world)) == read
    assert world.revisions("code") == ["code-1"]


def test_a_period_that_ends_during_training_is_read_after_it(world: World) -> None:
    world.kubelet.durations["train"] = timedelta(hours=5)
    world.change("code", data=sources(world) | {"refresh": "hourly"})
    world.run(until=START + timedelta(hours=4))
    assert (len(snapshot_jobs(world)), world.status("code").phase) == (1, "Training")
    world.run(until=START + timedelta(hours=5, minutes=30))
    assert (len(snapshot_jobs(world)), world.status("code").phase) == (2, "Serving")


def test_a_reading_that_takes_longer_than_a_period_comes_to_its_end(world: World) -> None:
    world.change("code", data=sources(world) | {"refresh": "hourly"})
    world.settle()
    world.kubelet.durations["snapshot"] = timedelta(hours=2, minutes=30)
    world.run(until=START + timedelta(hours=9))
    assert len(snapshot_jobs(world)) == 5
    assert world.status("code").snapshot.job == snapshot_jobs(world)[-2], (
        "the fourth is done, the fifth reads"
    )


def test_an_unreadable_source_is_final_and_a_passing_failure_is_repeated_with_growing_waits(
    world: World,
) -> None:
    (plan,) = (world.plan("Expert", "code"),)
    first = plan.create[0]["metadata"]["name"]
    passing = Failure(reason="ObjectStoreUnavailable", message="timed out", retryable=True)
    world.trainer.fate.update({first: passing, f"{first}-r2": passing})
    world.trainer.fate[f"{first}-r3"] = Failure(reason="DataUnreadable", message="code/a.txt is binary")
    world.settle()
    assert snapshot_jobs(world) == [first, f"{first}-r2", f"{first}-r3"]
    made = [world.get("Job", name)["metadata"]["creationTimestamp"] for name in snapshot_jobs(world)]
    assert [time[14:19] for time in made] == ["00:00", "00:10", "00:30"]
    status, reason, message = world.condition("code", "DataReady")
    assert (status, reason) == ("False", "DataUnreadable")
    assert "code/a.txt is binary" in message
    assert "change spec.runID" in message
    assert world.reasons("code").count(Reason.DATA_UNREADABLE) == 1
