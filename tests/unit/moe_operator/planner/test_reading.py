"""When the sources are read again: schedules, missed times, clocks that jump, and Experts of before there was status.refresh."""

from datetime import UTC, datetime, timedelta

import pytest
from world import START, World

from moe_formats.job_config import SnapshotJob
from moe_formats.job_report import Failure
from moe_formats.resources.expert import Expert
from moe_operator.planner.names import snapshot_job_name


@pytest.fixture
def world() -> World:
    """A pool with one Expert whose first revision serves."""
    world = World()
    world.pool()
    world.expert("code", base={"preset": "tiny"})
    world.settle()
    return world


def schedule(world: World, **fields: object) -> None:
    data = dict(world.get("Expert", "code")["spec"]["data"])
    for name in ("refresh", "refreshSchedule"):
        data.pop(name, None)
    world.change("code", data=data | fields)


def readings(world: World) -> int:
    return sum("-snapshot-" in name for name in world.created)


def nightly(world: World) -> None:
    """Read at 03:00 in Berlin, which is 02:00 UTC in November; the world begins on 2026-11-21 at 12:00 UTC."""
    schedule(world, refreshSchedule={"cron": "0 3 * * *", "timeZone": "Europe/Berlin"})


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


def jump(world: World, by: timedelta) -> None:
    """Set the clock, and have everything looked at: timers of the operator run on, whatever the clock shows."""
    world.now += by
    world.reconcile_all()


def test_a_cron_reads_at_its_times_and_says_when_next(world: World) -> None:
    nightly(world)
    world.run(until=at(22, 1, 59))
    assert (readings(world), world.status("code").refresh.next) == (1, at(22, 2))
    world.run(until=at(22, 3))
    status = world.status("code")
    assert readings(world) == 2
    assert (status.refresh.next, status.refresh.job) == (at(23, 2), status.snapshot.job)
    assert at(22, 2) <= status.refresh.last < at(22, 2, 1)
    world.run(until=at(25, 3))
    assert readings(world) == 5
    assert world.revisions("code") == ["code-1"]


def test_real_time_reads_every_minute_and_new_data_become_a_revision(world: World) -> None:
    schedule(world, refresh="realTime")
    began = world.now
    world.run(until=began + timedelta(minutes=10))
    assert 9 <= readings(world) - 1 <= 11
    world.data["code"] = 1
    world.run(until=world.now + timedelta(minutes=5))
    assert world.revisions("code") == ["code-1", "code-2"]
    assert world.revision("code-2").spec.cause == "NewData"
    assert world.status("code").serving.revision == "code-2"


@pytest.mark.parametrize("fields", [{"refresh": "hourly"}, {"refresh": "realTime"}, {"refresh": "daily"}])
def test_three_days_asleep_are_made_up_for_by_one_reading(world: World, fields: dict[str, str]) -> None:
    schedule(world, **fields)
    world.run(until=world.now + timedelta(seconds=1))
    before = readings(world)
    world.now += timedelta(days=3)  # nobody looked
    world.run(until=world.now + timedelta(seconds=40))
    assert readings(world) == before + 1


def test_three_days_paused_are_made_up_for_by_one_reading(world: World) -> None:
    nightly(world)
    world.pool(paused=True)
    world.run(until=at(24, 12))
    world.pool()
    world.run(until=at(25, 1))
    assert readings(world) == 2
    assert world.status("code").refresh.next == at(25, 2)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"refreshSchedule": {"cron": "0 3 * * *", "timeZone": "Europe/Berlin"}}, 3), ({"refresh": "daily"}, 2)],
)
@pytest.mark.parametrize("minutes_before", [90, 30, 1])
def test_a_clock_that_jumps_an_hour_and_back_neither_repeats_nor_skips(
    world: World, fields: dict[str, object], expected: int, minutes_before: int
) -> None:
    schedule(world, **fields)
    due = at(22, 2) if "refreshSchedule" in fields else at(22, 12)
    world.run(until=due - timedelta(minutes=minutes_before))
    jump(world, timedelta(hours=1))
    world.run(until=world.now + timedelta(minutes=2))
    jump(world, -timedelta(hours=1))
    world.run(until=at(24, 3))
    assert readings(world) - 1 == expected


def test_polling_goes_on_after_a_clock_was_an_hour_fast(world: World) -> None:
    schedule(world, refresh="realTime")
    world.run(until=world.now + timedelta(minutes=2))
    jump(world, timedelta(hours=1))
    world.run(until=world.now + timedelta(minutes=2))
    jump(world, -timedelta(hours=1))
    before = readings(world)
    world.run(until=world.now + timedelta(minutes=10))
    assert 8 <= readings(world) - before <= 11


def test_a_changed_schedule_counts_from_the_newest_reading(world: World) -> None:
    schedule(world, refresh="hourly")
    world.run(until=START + timedelta(hours=30, minutes=30))
    hourly = readings(world)
    schedule(world, refresh="weekly")
    world.run(until=START + timedelta(days=6))
    assert readings(world) == hourly
    world.run(until=START + timedelta(days=8))
    assert readings(world) == hourly + 1


@pytest.mark.parametrize(
    ("schedule_", "words"),
    [
        ({"cron": "0 0 30 2 *"}, "does not happen within 50 years"),
        ({"cron": "0 3 * * *", "timeZone": "Europe/Atlantis"}, "Europe/Atlantis"),
    ],
)
def test_a_schedule_that_cannot_be_followed_is_said_and_stops_nothing_that_serves(
    world: World, schedule_: dict[str, str], words: str
) -> None:
    world.expert("prose", base={"preset": "tiny"})
    schedule(world, refreshSchedule=schedule_)
    world.settle()
    assert world.condition("code", "Stalled")[:2] == ("True", "InvalidSchedule")
    assert words in world.condition("code", "Stalled")[2]
    assert world.condition("code", "Ready")[0] == "True"
    assert world.condition("code", "DataReady")[0] == "True"
    assert world.status("prose").phase == "Serving"
    nightly(world)
    world.settle()
    assert world.condition("code", "Stalled")[0] == "False"


def test_a_reading_that_fails_for_good_is_followed_by_one_at_the_next_due_time(world: World) -> None:
    schedule(world, refresh="hourly")
    world.run(until=START + timedelta(minutes=30))
    held = world.status("code").snapshot
    broken = Failure(reason="DataUnreadable", message="code/a.txt is binary")
    for number in range(1, 100):  # whichever number the next readings have
        world.trainer.fate |= fates(world, number, broken)
    world.run(until=START + timedelta(hours=2, minutes=30))
    assert readings(world) == 3
    assert world.condition("code", "DataReady")[:2] == ("False", "DataUnreadable")
    assert world.status("code").snapshot == held
    world.trainer.fate.clear()
    world.run(until=START + timedelta(hours=3, minutes=30))
    assert world.condition("code", "DataReady")[:2] == ("True", "SnapshotTaken")
    assert readings(world) == 4
    assert world.revisions("code") == ["code-1"]


def fates(world: World, number: int, failure: Failure) -> dict[str, Failure]:
    digest = world.status("code").snapshot.request.rpartition("-")[0]
    return {snapshot_job_name("code", f"{digest}-{number}", 1): failure}


# -- Experts of before there was status.refresh


def before_the_upgrade(world: World, refresh: str, number: int, age: timedelta) -> None:
    """Make the Expert one that an operator without status.refresh left ``age`` after its creation."""
    schedule(world, refresh=refresh)
    live = world.get("Expert", "code")
    expert = Expert.model_validate(live)
    assert expert.status.snapshot is not None
    digest = expert.status.snapshot.request.rpartition("-")[0]
    created = expert.metadata.creation_timestamp
    assert created is not None
    world.now = created + age
    snapshot = live["status"]["snapshot"] | {
        "request": f"{digest}-{number}",
        "time": (created + age - timedelta(minutes=10)).isoformat(),
    }
    status = {name: value for name, value in live["status"].items() if name != "refresh"}
    world.server.write_status(("Expert", "default", "code"), status | {"snapshot": snapshot})


@pytest.mark.parametrize("refresh", ["never", "hourly", "daily", "weekly"])
def test_an_upgrade_takes_no_snapshot_before_the_next_period_begins(world: World, refresh: str) -> None:
    period = {"never": 24, "hourly": 1, "daily": 24, "weekly": 168}[refresh] * timedelta(hours=1)
    before_the_upgrade(world, refresh, 0 if refresh == "never" else 17, 17.5 * period)
    fresh = world.fork()  # another operator
    fresh.run(until=fresh.now + 0.49 * period)
    assert readings(fresh) == readings(world)
    fresh.run(until=fresh.now + 0.1 * period)
    assert readings(fresh) == readings(world) + (refresh != "never")


def test_a_period_that_began_before_the_upgrade_is_read_after_it(world: World) -> None:
    before_the_upgrade(world, "daily", 16, timedelta(days=17.5))
    fresh = world.fork()
    fresh.run(until=fresh.now + timedelta(hours=1))
    assert readings(fresh) == readings(world) + 1


def test_a_reading_that_the_operator_before_had_begun_is_awaited(world: World) -> None:
    """It was asked for by the number of the period, which skips those that passed during a training."""
    before_the_upgrade(world, "hourly", 17, timedelta(hours=20.5))
    world.kubelet.durations["snapshot"] = timedelta(hours=2)
    world.run(until=world.now + timedelta(minutes=1))
    begun = world.created[-1]
    live = world.get("Expert", "code")
    assert live["status"]["refresh"]["request"].endswith("-20")
    status = {name: value for name, value in live["status"].items() if name != "refresh"}
    world.server.write_status(("Expert", "default", "code"), status)
    fresh = world.fork()
    fresh.now += timedelta(hours=1)  # so that another period has begun
    fresh.run(until=fresh.now + timedelta(minutes=50))
    assert fresh.created[-1] == begun
    fresh.run(until=fresh.now + timedelta(minutes=15))
    assert fresh.status("code").snapshot.job == begun


# -- deliveries that are refused


def refuse(world: World, upto: int = 100) -> None:
    refused = Failure(
        reason="DeliveryRefused", message="the delivery was refused: 10 of 50 records are dropped."
    )
    for number in range(1, upto):
        world.trainer.fate |= fates(world, number, refused)


def limit(world: World, **gates: object) -> None:
    world.change("code", data=world.get("Expert", "code")["spec"]["data"] | {"gates": gates})


def test_a_refused_delivery_trains_nothing_keeps_the_snapshot_and_is_read_again_when_due(
    world: World,
) -> None:
    limit(world, maxLost=0.1)
    schedule(world, refresh="hourly")
    world.run(until=START + timedelta(minutes=30))
    assert readings(world) == 1, "limits alone ask for no reading"
    held = world.status("code").snapshot
    refuse(world)
    world.data["code"] = 1
    world.run(until=START + timedelta(hours=1, minutes=30))
    status, reason, message = world.condition("code", "DataReady")
    assert (status, reason) == ("False", "DeliveryRefused")
    assert "10 of 50 records are dropped. The newest snapshot stays in use" in message
    assert f"read again at {START + timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}" in message
    assert world.condition("code", "Ready")[0] == "True"
    assert world.status("code").snapshot == held
    assert world.revisions("code") == ["code-1"]
    world.trainer.fate.clear()
    world.run(until=START + timedelta(hours=2, minutes=30))
    assert world.condition("code", "DataReady")[:2] == ("True", "SnapshotTaken")
    assert world.revisions("code") == ["code-1", "code-2"]


def test_other_limits_have_a_refused_delivery_read_at_once(world: World) -> None:
    schedule(world, refresh="weekly")
    refuse(world, 2)
    limit(world, maxLost=0.1)
    world.run(until=START + timedelta(days=7, hours=1))
    assert world.condition("code", "DataReady")[:2] == ("False", "DeliveryRefused")
    before = readings(world)
    world.change("code", serving={"replicas": 2})
    world.settle()
    assert readings(world) == before
    limit(world, maxLost=0.5)
    world.settle()
    assert readings(world) == before + 1
    assert world.condition("code", "DataReady")[:2] == ("True", "SnapshotTaken")
    assert world.revisions("code") == ["code-1"]


def test_a_training_that_is_asked_for_meanwhile_uses_the_snapshot_that_is_kept(world: World) -> None:
    schedule(world, refresh="weekly")
    refuse(world)
    world.run(until=START + timedelta(days=7, hours=1))
    world.change("code", training={"learningRate": 0.002})
    world.run(until=world.now + timedelta(hours=1))
    assert world.revisions("code") == ["code-1", "code-2"]
    assert world.status("code").serving.revision == "code-2"
    assert world.revision("code-2").spec.inputs.data == world.revision("code-1").spec.inputs.data


def test_a_job_with_limits_is_told_what_to_compare_the_delivery_with(world: World) -> None:
    schedule(world, refresh="hourly")
    limit(world, maxLost=0.1)
    world.run(until=START + timedelta(hours=1, minutes=30))
    jobs = [snapshot_config(world, name) for name in world.created if "-snapshot-" in name]
    held = world.status("code").snapshot
    assert jobs[-1].gates is not None and jobs[-1].gates.max_lost == 0.1
    assert jobs[-1].previous is not None and jobs[-1].previous.digest == held.digest


def snapshot_config(world: World, job: str) -> SnapshotJob:
    if not world.has("Job", job):
        return SnapshotJob.model_construct(gates=None, previous=None)
    (container,) = world.get("Job", job)["spec"]["template"]["spec"]["containers"]
    (text,) = [item["value"] for item in container["env"] if item["name"] == "MOE_JOB_CONFIG"]
    return SnapshotJob.model_validate_json(text)


@pytest.mark.parametrize("reason", ["DataMissing", "DataEmpty"])
def test_a_source_that_vanishes_trains_nothing_and_loses_nothing(world: World, reason: str) -> None:
    schedule(world, refresh="hourly")
    world.run(until=START + timedelta(minutes=30))
    held = world.status("code").snapshot
    vanished = Failure(reason=reason, message="source corpora/code/*.txt: no file matches.")
    for number in range(1, 4):
        first = next(iter(fates(world, number, vanished)))
        world.trainer.fate |= {
            f"{first}{attempt}": vanished for attempt in ("", *(f"-r{n}" for n in range(2, 9)))
        }
    world.run(until=START + timedelta(hours=2, minutes=5))
    assert world.condition("code", "DataReady")[:2] == ("False", reason)
    assert "read again by themselves" in world.condition("code", "DataReady")[2]
    assert world.condition("code", "Ready")[0] == "True"
    assert world.status("code").snapshot == held
    assert world.status("code").serving.revision == "code-1"
    world.trainer.fate.clear()
    world.run(until=START + timedelta(hours=2, minutes=30))
    assert world.condition("code", "DataReady")[:2] == ("True", "SnapshotTaken")
    assert world.status("code").snapshot.digest == held.digest
    assert world.revisions("code") == ["code-1"]
