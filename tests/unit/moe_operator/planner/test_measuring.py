"""When drift is measured, of what, and what becomes of the result."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from world import World
from world.manifests import is_finished, job_config

from moe_formats.job_config import DriftJob
from moe_formats.job_report import Failure
from moe_formats.resources.reasons import Reason
from moe_operator.planner.measuring import share_moved
from moe_operator.planner.times import until_next

SUMS = {
    "name": "sums",
    "measure": "exactMatch",
    "store": "corpora",
    "path": "sums.jsonl",
    "promptField": "question",
    "answerField": "answer",
}


def begin(**pool: Any) -> World:
    """Return a pool of a base and one domain, which serves."""
    world = World()
    world.pool(**pool)
    world.expert("general")
    world.expert("code")
    world.settle()
    return world


def deliver(world: World, *, junk: bool = False) -> None:
    """Give the domain other data, from which a revision is made; one that is trained on junk is refused."""
    version = world.data.get("code", 0) + 1
    world.data["code"] = version
    if junk:
        world.trainer.junk.add(version)
    world.change("code", runID=f"run-{version}")
    world.settle()


def begin_measuring_on_junk(world: World) -> str:
    """Deliver junk, from which a refused revision is made, and return the Job that then measures the current one."""
    before = len(drift_jobs(world))
    version = world.data["code"] + 1
    world.data["code"] = version
    world.trainer.junk.add(version)
    world.change("code", runID=f"run-{version}")
    for _ in range(200):
        if len(drift_jobs(world)) > before:
            return drift_jobs(world)[-1]
        world.run(world.now + timedelta(seconds=1))
    raise AssertionError("nothing is measured")


def schedule(world: World, value: str) -> None:
    """Set the pool's schedule."""
    world.pool(evaluation={"schedule": value})


def drift_jobs(world: World) -> list[str]:
    """Return the names of the drift Jobs that were ever created."""
    return [name for name in world.created if "-drift-" in name]


def newest_job(world: World) -> DriftJob:
    """Return what the newest drift Job was asked."""
    found = job_config(world.get("Job", drift_jobs(world)[-1]))
    assert isinstance(found, DriftJob)
    return found


@pytest.fixture(scope="module")
def two_windows() -> World:
    """A domain whose third revision is current; two windows were held out since its anchor."""
    world = begin()
    deliver(world)
    deliver(world)
    return world


@pytest.fixture
def world(two_windows: World) -> World:
    """A world of a test's own."""
    return two_windows.fork()


def test_the_current_revision_is_measured_against_the_base_of_its_line_on_the_newest_window(
    world: World,
) -> None:
    drift = world.status("code").drift
    assert (drift.revision, drift.base, drift.drifted, drift.cause) == ("code-3", "general-1", False, None)
    assert drift.interval.value == 0.0 and drift.lower_bound == -0.012
    assert len(drift.windows) == 2 and drift.clusters == 60
    assert world.condition("code", "Drifted")[:2] == ("False", Reason.NOT_DRIFTED)
    job, snapshot = newest_job(world), world.status("code").snapshot
    assert (job.model.revision, job.base.revision) == ("code-3", "general-1")
    assert (job.anchor.digest, job.newest.digest) == (snapshot.anchor.digest, snapshot.newest.digest)
    assert drift.anchor == snapshot.anchor.digest and drift.windows[-1] == snapshot.newest.digest


@pytest.mark.parametrize(
    ("found", "status", "cause"),
    [
        ({"drift": {"code-3": 0.1}}, "True", "QualityDrop"),
        ({"drift": {"code-3": 0.1}, "harder": {"code-3": 0.1}}, "True", "QualityDrop"),
        ({"harder": {"code-3": 0.1}}, "False", "InputShift"),
        ({"nearest": {"code": "law"}}, "False", "DomainChanged"),
        ({"nearest": {"code": "law"}, "drift": {"code-3": 0.1}}, "True", "DomainChanged"),
        ({"drift": {"code-3": 0.02}}, "False", None),
    ],
)
def test_what_is_found_becomes_the_verdict_the_cause_and_an_event(
    found: dict[str, Any], status: str, cause: str | None
) -> None:
    world = begin()
    for name, value in found.items():
        setattr(world.trainer, name, value)
    deliver(world)
    deliver(world)
    assert world.status("code").drift.cause == cause
    assert world.condition("code", "Drifted")[:2] == (status, cause or Reason.NOT_DRIFTED)
    assert [reason for reason in world.reasons("code") if reason == cause] == ([cause] if cause else [])


def test_one_window_is_too_few_and_a_preset_has_no_base() -> None:
    world = begin()
    assert world.condition("code", "Drifted")[:2] == ("Unknown", Reason.TOO_FEW_WINDOWS)
    assert world.condition("general", "Drifted")[:2] == ("Unknown", Reason.NO_BASE)
    assert drift_jobs(world) == []
    deliver(world)
    status, reason, message = world.condition("code", "Drifted")
    assert (status, reason) == ("Unknown", Reason.TOO_FEW_WINDOWS)
    assert "1 held out since the anchor" in message
    assert not world.status("code").drift.drifted


def test_a_schedule_of_never_measures_nothing_and_keeps_what_is_known(world: World) -> None:
    before = len(drift_jobs(world))
    schedule(world, "never")
    world.settle()
    assert world.condition("code", "Drifted")[0] == "False"
    deliver(world)
    assert len(drift_jobs(world)) == before
    assert world.status("code").drift.revision == "code-3"
    assert "Drifted" not in [item.type for item in world.status("code").conditions]


def test_a_refused_window_is_what_the_current_revision_is_measured_on(world: World) -> None:
    world.trainer.drift["code-3"] = 0.05
    deliver(world, junk=True)
    assert world.revision("code-4").status.verdict.outcome == "Refused"
    drift = world.status("code").drift
    assert (drift.revision, drift.drifted, len(drift.windows)) == ("code-3", True, 3)
    for value, drifted in ((0.02, True), (0.006, True), (0.004, False), (0.006, False)):
        world.trainer.drift["code-3"] = value
        deliver(world, junk=True)
        drift = world.status("code").drift
        assert (drift.interval.value, drift.drifted) == (value, drifted)
    assert len(drift.windows) == 4


@pytest.mark.parametrize(("name", "days"), [("daily", 1), ("weekly", 7)])
def test_a_schedule_says_how_often_new_windows_are_measured(world: World, name: str, days: int) -> None:
    schedule(world, name)
    world.settle()
    before = len(drift_jobs(world))
    deliver(world, junk=True)
    deliver(world, junk=True)
    assert len(drift_jobs(world)) == before
    assert world.condition("code", "Drifted")[:2] == ("False", Reason.NOT_DRIFTED)
    world.run(world.now + timedelta(days=days))
    assert len(drift_jobs(world)) == before + 1  # what was missed collapses into one
    assert len(world.status("code").drift.windows) == 4
    writes = world.writes
    world.run(world.now + timedelta(days=3 * days))
    assert world.writes == writes  # nothing is new, so nothing is measured


@pytest.mark.parametrize(
    ("last", "left"),
    [
        ("2026-12-01T00:00:00+00:00", 43_200),
        ("2026-11-30T11:00:00+00:00", 0),
        ("2027-12-01T00:00:00+00:00", 86_400),  # The clock was put back: no more than a period is waited.
        ("2026-12-01T00:00:00", 0),
        ("yesterday", 0),
        ("", 0),
    ],
)
def test_a_period_is_counted_from_the_last_time_if_that_can_be(last: str, left: float) -> None:
    assert until_next(last, timedelta(days=1), datetime(2026, 12, 1, 12, tzinfo=UTC)) == left


def test_a_new_revision_does_not_wait_for_the_schedule(world: World) -> None:
    schedule(world, "weekly")
    deliver(world)
    assert world.status("code").drift.revision == "code-4"


def test_nothing_is_measured_while_a_revision_is_being_made(world: World) -> None:
    def at_once(seen: World) -> bool:
        alive = {
            role
            for role in ("train", "evaluate", "drift")
            for job in seen.all("Job", role=role, expert="code")
            if not is_finished(job)
        }
        return "drift" in alive and len(alive) > 1

    world.data["code"] = 3
    world.change("code", runID="third")
    assert set(world.course(at_once)) == {False}
    assert world.status("code").drift.revision == "code-4"


def test_the_result_for_a_revision_that_was_replaced_meanwhile_is_dropped(world: World) -> None:
    world.trainer.drift = {"code-3": 0.1, "code-5": 0.02}
    late = begin_measuring_on_junk(world)
    # The measurement of code-3 on the third window has begun; it has to be repeated while code-5 is made and promoted.
    world.trainer.fate[late] = "disrupted"
    world.trainer.junk.clear()
    world.change("code", seed=7)
    world.settle()
    drift = world.status("code").drift
    assert world.status("code").current_revision == drift.revision == "code-5"
    assert (drift.drifted, drift.interval.value) == (False, 0.02)
    assert not world.has("Job", late)


def test_the_base_of_the_line_counts_though_the_spec_names_another_meanwhile(world: World) -> None:
    world.expert("other", base={"preset": "tiny"})
    world.settle()
    world.trainer.fate.update({f"code-4-a{attempt}": 64 for attempt in (1, 2)})
    world.change("code", base={"expert": "other"})
    world.settle()
    assert world.status("code").base_revision == "other-1"
    assert world.status("code").current_revision == "code-3"
    world.data["code"] = 3
    world.trainer.fate.update({f"code-5-a{attempt}": 64 for attempt in (1, 2)})
    world.change("code", runID="third")
    world.settle()
    job = newest_job(world)
    assert (job.model.revision, job.base.revision) == ("code-3", "general-1")
    assert len(world.status("code").drift.windows) == 3


def test_a_measurement_that_fails_for_good_is_said_and_not_repeated_until_something_is_new(
    world: World,
) -> None:
    gone = Failure(reason="ArtefactCorrupt", message="a window is gone")
    world.trainer.fate[begin_measuring_on_junk(world)] = gone
    world.settle()
    status, reason, message = world.condition("code", "Drifted")
    assert (status, reason) == ("Unknown", Reason.ARTEFACT_CORRUPT)
    assert "a window is gone" in message
    drift = world.status("code").drift
    assert drift.interval is None and drift.windows == [] and drift.report is None
    created = len(world.created)
    world.run(world.now + timedelta(days=2))
    assert len(world.created) == created
    deliver(world, junk=True)
    assert world.condition("code", "Drifted")[:2] == ("False", Reason.NOT_DRIFTED)


def test_an_evaluator_that_fell_is_the_cause_only_if_the_text_fits_as_before() -> None:
    world = World()
    world.pool(evaluation={"evaluators": [SUMS]})
    world.expert("general")
    world.expert("code", promotion={"evaluators": ["sums"]})
    world.settle()
    deliver(world)
    world.trainer.accuracy_gained["code-3 now"] = -0.2
    deliver(world)
    assert world.condition("code", "Drifted")[:2] == ("False", Reason.TASK_DROP)
    (found,) = world.status("code").drift.accuracies
    assert found.accuracy.value == pytest.approx(0.7)


def test_a_share_moved_if_it_did_so_by_much_and_by_a_part_of_itself() -> None:
    assert share_moved(0.3, 0.2)
    assert share_moved(0.1, 0.2)
    assert not share_moved(0.24, 0.2)
    assert not share_moved(0.04, 0.01)
    assert not share_moved(0.8, 0.7)


def test_one_drift_job_stays_for_its_logs(world: World) -> None:
    deliver(world)
    (job,) = world.all("Job", role="drift")
    assert job["metadata"]["name"] == drift_jobs(world)[-1]


def test_a_kill_after_any_write_measures_nothing_twice_and_loses_nothing(world: World) -> None:
    world.history = []
    world.trainer.drift["code-4"] = 0.1
    world.data["code"] = 3
    world.change("code", runID="third")
    world.settle()
    assert world.status("code").drift.cause == "QualityDrop"
    jobs = len(drift_jobs(world))
    # test_kills.py has the kills before: here, those from the gate's verdict on.
    decided = [
        item
        for item in world.history
        if "code-4" in item.revisions("code") and item.revision("code-4").status.verdict
    ]
    assert len(decided) > 5
    for number, left_behind in enumerate(decided):
        left_behind.settle()
        assert left_behind.end_state() == world.end_state(), f"killed after write {number}"
        assert left_behind.status("code").drift.cause == "QualityDrop"
        assert len(drift_jobs(left_behind)) == jobs
