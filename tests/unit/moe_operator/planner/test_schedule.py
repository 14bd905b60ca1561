"""When sources are due: held against every minute of a year on the clock of its time zone, in plain Python."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from moe_formats.resources.data import Data
from moe_operator.planner.schedule import mistake, next_due

CREATED = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SOURCES = [{"store": "corpora", "path": "a.txt"}]


def data(cron: str, zone: str = "UTC") -> Data:
    return Data.model_validate({"sources": SOURCES, "refreshSchedule": {"cron": cron, "timeZone": zone}})


def refreshed(refresh: str) -> Data:
    return Data.model_validate({"sources": SOURCES, "refresh": refresh})


def due_times(asked: Data, begin: datetime, end: datetime) -> list[datetime]:
    """All due times between two dates, each found from the one before."""
    found: list[datetime] = []
    due = next_due(asked, CREATED, begin)
    while due is not None and due < end:
        found.append(due)
        due = next_due(asked, CREATED, due)
    return found


def minutes(begin: datetime, end: datetime) -> Iterator[datetime]:
    while begin < end:
        begin += timedelta(minutes=1)
        yield begin


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"])
@pytest.mark.parametrize(
    ("cron", "matches"),
    [
        ("30 4 * * *", lambda local: (local.hour, local.minute) == (4, 30)),
        ("0 22 * * 1-5", lambda local: (local.hour, local.minute) == (22, 0) and local.weekday() < 5),
        ("15 6 1 * *", lambda local: (local.day, local.hour, local.minute) == (1, 6, 15)),
        ("*/20 * * * *", lambda local: local.minute % 20 == 0),
        (
            "5,35 9-11 * 3 *",
            lambda local: local.minute in (5, 35) and 9 <= local.hour <= 11 and local.month == 3,
        ),
    ],
)
def test_a_time_that_no_change_of_the_clock_concerns_is_due_at_every_minute_that_matches(
    zone: str, cron: str, matches: object
) -> None:
    # 17 days around each change of Berlin's clock in 2026; St John's is not whole hours off, Lord Howe changes by half an hour.
    for begin in (datetime(2026, 3, 20, tzinfo=UTC), datetime(2026, 10, 17, tzinfo=UTC)):
        end = begin + timedelta(days=17)
        clock = ZoneInfo(zone)
        expected = [minute for minute in minutes(begin, end) if matches(minute.astimezone(clock))]  # type: ignore[operator]
        assert due_times(data(cron, zone), begin, end + timedelta(minutes=1)) == expected


@pytest.mark.parametrize(
    ("cron", "begin", "expected"),
    [
        # 2026-03-29: 02:00 becomes 03:00 in Berlin, at 01:00 UTC. What is skipped is due at the end of the gap, once.
        ("30 2 * * *", "2026-03-28T12:00", ["29 01:00", "30 00:30"]),
        ("15,45 2 * * *", "2026-03-28T12:00", ["29 01:00", "30 00:15"]),
        ("0 2,3 * * *", "2026-03-28T12:00", ["29 01:00", "30 00:00"]),
        # 2026-10-25: 03:00 becomes 02:00 in Berlin, at 01:00 UTC. What comes twice is due once.
        ("30 2 * * *", "2026-10-24T12:00", ["25 00:30", "26 01:30"]),
        ("30 * * * *", "2026-10-25T00:00", ["25 00:30", "25 01:30"]),
        # From between the two: what was due already is not due again.
        ("30 2 * * *", "2026-10-25T01:15", ["26 01:30", "27 01:30"]),
        ("0,30 2,3 * * *", "2026-10-25T01:15", ["25 02:00", "25 02:30"]),
    ],
)
def test_changes_of_the_clock_neither_repeat_nor_leave_out(
    cron: str, begin: str, expected: list[str]
) -> None:
    start = datetime.fromisoformat(begin).replace(tzinfo=UTC)
    found = due_times(data(cron, "Europe/Berlin"), start, start + timedelta(days=5))
    assert [due.strftime("%d %H:%M") for due in found[:2]] == expected


@pytest.mark.parametrize(
    ("refresh", "hours"), [("hourly", 1), ("daily", 24), ("weekly", 168), ("realTime", 1 / 60)]
)
def test_periods_are_counted_from_the_creation(refresh: str, hours: float) -> None:
    period = timedelta(hours=hours)
    for after, number in ((timedelta(0), 1), (period / 2, 1), (period, 2), (period * 41.5, 42)):
        assert next_due(refreshed(refresh), CREATED, CREATED + after) == CREATED + number * period
    assert next_due(refreshed("never"), CREATED, CREATED) is None


@pytest.mark.parametrize(
    ("cron", "zone", "words"),
    [
        ("0 0 30 2 *", "UTC", "does not happen within 50 years"),
        ("* * */20 * 1L", "UTC", "does not happen within 50 years"),
        ("61 * * * *", "UTC", "cannot be read (Bad minute)"),
        ("0 0 32 * *", "UTC", "cannot be read (Bad day-of-month)"),
        ("0 3 * * *", "Europe/Atlantis", "timeZone is 'Europe/Atlantis'"),
        ("0 3 * * *", "Europe", "timeZone is 'Europe'"),
    ],
)
def test_a_schedule_that_can_never_be_due_is_a_mistake_and_never_due(
    cron: str, zone: str, words: str
) -> None:
    asked = data(cron, zone)
    assert asked.refresh_schedule is not None
    assert words in (mistake(asked.refresh_schedule) or "")
    assert next_due(asked, CREATED, CREATED) is None


@pytest.mark.parametrize("cron", ["0 0 29 2 *", "59 23 31 12 7", "0 3 L * *", "0 0 * 2 MON#5"])
def test_a_schedule_that_is_seldom_due_is_none(cron: str) -> None:
    asked = data(cron)
    assert asked.refresh_schedule is not None
    assert mistake(asked.refresh_schedule) is None
    assert next_due(asked, CREATED, CREATED) is not None
