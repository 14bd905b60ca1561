"""Decides when the sources of an Expert are due: the times that ``spec.data.refresh`` or ``refreshSchedule`` stands for.

    hourly, daily, weekly, realTime    whole periods since the Expert was created
    cron                               the minutes that match, on the clock of a time zone, as Debian's cron has them

Where a clock is put forward, a time of day that is skipped is due at the end of the gap. Where it is put back, a time of
day that comes twice is due the first time only; expressions whose minute or hour begins with ``*`` are due both times.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from moe_formats.resources.data import Data, RefreshSchedule

#: The periods that spec.data.refresh names.
PERIODS = {
    "realTime": timedelta(seconds=60),
    "hourly": timedelta(hours=1),
    "daily": timedelta(days=1),
    "weekly": timedelta(weeks=1),
}

#: Times of an expression that are passed over at most before one is later than a given time: cronsim begins on the clock of
#: the time zone, which shows the hour before it is put back twice.
_PASSED_OVER = 120

#: Cronsim looks for a match for 50 years, in which every day and every weekday comes together with every other.
_ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)


def next_due(data: Data, created: datetime | None, after: datetime) -> datetime | None:
    """Return the first time after ``after`` at which sources are due, in UTC; None if they never are.

    ``created`` is when the Expert was. A schedule that is a mistake is never due.
    """
    if data.refresh_schedule is not None:
        return _next_match(data.refresh_schedule, after.astimezone(UTC))
    period = PERIODS.get(data.refresh)
    if period is None or created is None:
        return None
    return created + (max(after - created, timedelta(0)) // period + 1) * period


@lru_cache(maxsize=1024)
def mistake(schedule: RefreshSchedule) -> str | None:
    """Return what is wrong with a schedule, with the field and the fix; None if it will be due some day."""
    field, cron = "spec.data.refreshSchedule", schedule.cron
    if _zone(schedule.time_zone) is None:
        return (
            f"{field}.timeZone is {schedule.time_zone!r}, which is no time zone: name one of the IANA database, for example "
            "Europe/Berlin or UTC"
        )
    if (error := _unreadable(cron)) is not None and _unreadable(_in_any_month(cron)) is not None:
        return (
            f"{field}.cron is {cron!r}, which cannot be read ({error}): give minute, hour, day of the month, month and day of "
            "the week, for example '0 3 * * 1-5'"
        )
    if error is not None or _next_match(schedule, _ANY_TIME) is None:
        return (
            f"{field}.cron is {cron!r}, which does not happen within 50 years: correct its days and months, or remove "
            "refreshSchedule and set spec.data.refresh"
        )
    return None


@lru_cache(maxsize=1024)
def _next_match(schedule: RefreshSchedule, after: datetime) -> datetime | None:
    zone = _zone(schedule.time_zone)
    if zone is None or _unreadable(schedule.cron) is not None:
        return None
    matches = islice(CronSim(schedule.cron, after.astimezone(zone)), _PASSED_OVER)
    return next((utc for match in matches if (utc := match.astimezone(UTC)) > after), None)


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, malformed, or a folder of the database
        return None


def _unreadable(cron: str) -> str | None:
    """Return why cronsim refuses an expression, also one whose days are in none of its months; None if it does not."""
    try:
        CronSim(cron, datetime.min)
    except CronSimError as error:
        return str(error)
    return None


def _in_any_month(cron: str) -> str:
    fields = cron.split()
    return " ".join([*fields[:3], "*", *fields[4:]])
