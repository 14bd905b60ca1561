"""What was observed of Experts' traffic: sums in buckets of time, and the counts that pods last gave.

Each Expert has three series: sums of 5 minutes for a day, sums of an hour for 30 days, and histograms of an hour for a day.
Numbers are kept in arrays, so 64 Experts with a month of traffic take 3 MB. Buckets are numbered by the seconds since 1970
over the length of a bucket.

The state of a pool is written as one compressed text. Buckets and the counts that they were computed from are written
together, so what is read back after a restart goes on exactly where it stopped: nothing is counted twice.
"""

import json
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from moe_formats.observations import SECONDS, TENTHS, Observations

MINUTES = 300.0
HOUR = 3600.0
#: Buckets that are kept of each series: a day of 5 minutes, 30 days of hours, a day of hours; days with the bucket under way.
_FINE, _HOURS, _HISTOGRAMS = 289, 720, 25
#: Largest state of a pool that is written, in bytes, and largest one that is unpacked again.
WRITTEN_BYTES = 512 * 1024
_UNPACKED_BYTES = 64 * 1024 * 1024
#: Seconds that an observation may be ahead of the clock before it is dropped: the clock was set back.
_AHEAD = 7200

#: What is summed in every bucket, in the order of a row.
SCALARS = (
    "observed_seconds",
    "replica_seconds",
    "in_flight_seconds",
    "answered",
    "failed",
    "left",
    "stood_in",
    "unmet",
    "prompt_tokens",
    "completion_tokens",
)
_FIRST_TOKEN = len(SECONDS) + 1


@dataclass(frozen=True, slots=True)
class Usage:
    """What happened to one Expert in some span of time. A sum of buckets; all zero if nothing was observed."""

    #: Seconds that were observed; less than the span where no operator or no pod could be asked.
    observed_seconds: float = 0
    #: Sum over ready servers of the seconds that they were there.
    replica_seconds: float = 0
    #: Sum over requests of the seconds that they were under way.
    in_flight_seconds: float = 0
    answered: float = 0
    failed: float = 0
    left: float = 0
    stood_in: float = 0
    unmet: float = 0
    prompt_tokens: float = 0
    completion_tokens: float = 0
    #: Streamed answers by seconds to the first token, and routed requests by the probability of the chosen Expert: one
    #: number per bucket of ``observations.py``. Empty where they are not asked for.
    first_token: tuple[float, ...] = field(default=(), kw_only=True)
    confidence: tuple[float, ...] = field(default=(), kw_only=True)

    @property
    def requests(self) -> float:
        """Number of requests, however they ended."""
        return self.answered + self.failed + self.left

    def sums(self) -> list[float]:
        """Return the numbers of SCALARS."""
        return [getattr(self, name) for name in SCALARS]

    def histograms(self) -> list[float]:
        """Return the numbers of both histograms."""
        return [*(self.first_token or (0.0,) * _FIRST_TOKEN), *(self.confidence or (0.0,) * len(TENTHS))]


class Series:
    """Buckets of one length that follow one another. A bucket in which nothing was observed is all zero."""

    def __init__(self, seconds: float, buckets: int, width: int) -> None:
        """Keep the newest ``buckets`` buckets of ``seconds`` seconds, each with ``width`` numbers."""
        self.seconds, self.buckets, self.width = seconds, buckets, width
        self.start = 0
        self.rows = array("f")

    def __len__(self) -> int:
        return len(self.rows) // self.width

    def add(self, time: float, row: Iterable[float]) -> None:
        """Add numbers to the bucket of a time. One that is older than the oldest that is kept is dropped."""
        place = int(time // self.seconds)
        if not self.rows or place - self.start >= 2 * self.buckets:
            self.start, self.rows = place, array("f")
        if place < self.start:
            missing = self.start - place
            if len(self) + missing > self.buckets:
                return
            self.rows, self.start = array("f", bytes(4 * self.width * missing)) + self.rows, place
        missing = place - self.start + 1 - len(self)
        if missing > 0:
            self.rows.frombytes(bytes(4 * self.width * missing))
        at = (place - self.start) * self.width
        for offset, number in enumerate(row):
            self.rows[at + offset] += number
        if len(self) > self.buckets:
            self._forget(len(self) - self.buckets)

    def sum(self, begin: float, end: float) -> list[float]:
        """Return the sums of the buckets that begin in a span of time, ``end`` excluded."""
        first = max(0, -int(-begin // self.seconds) - self.start)
        last = max(first, min(len(self), -int(-end // self.seconds) - self.start))
        part = self.rows[first * self.width : last * self.width]
        return [sum(part[column :: self.width]) for column in range(self.width)]

    def newest(self) -> float:
        """Return when the newest bucket begins, in seconds since 1970; 0 if there is none."""
        return (self.start + len(self) - 1) * self.seconds if self.rows else 0.0

    def cut(self, time: float) -> None:
        """Drop the buckets that begin after a time."""
        kept = max(0, int(time // self.seconds) + 1 - self.start)
        del self.rows[kept * self.width :]

    def _forget(self, oldest: int) -> None:
        del self.rows[: oldest * self.width]
        self.start += oldest


class ExpertTraffic:
    """The series of one Expert."""

    def __init__(self) -> None:
        self.fine = Series(MINUTES, _FINE, len(SCALARS))
        self.hours = Series(HOUR, _HOURS, len(SCALARS))
        self.histograms = Series(HOUR, _HISTOGRAMS, _FIRST_TOKEN + len(TENTHS))

    @property
    def all_series(self) -> tuple[Series, Series, Series]:
        """Return all series, in the order in which they are written."""
        return self.fine, self.hours, self.histograms

    def add(self, time: float, usage: Usage) -> None:
        """Add what happened at a time, in seconds since 1970."""
        for series, row in (
            (self.fine, usage.sums()),
            (self.hours, usage.sums()),
            (self.histograms, usage.histograms()),
        ):
            series.cut(time + _AHEAD)
            series.add(time, row)

    def of_day(self, begin: float, end: float) -> Usage:
        """Return what happened in a span of the last day, from the buckets of 5 minutes that begin in it.

        Histograms are those of the hours that begin in it.
        """
        histograms = self.histograms.sum(begin, end)
        return Usage(
            *self.fine.sum(begin, end),
            first_token=tuple(histograms[:_FIRST_TOKEN]),
            confidence=tuple(histograms[_FIRST_TOKEN:]),
        )

    def of_hours(self, begin: float, end: float) -> Usage:
        """Return what happened in a span of the last 30 days, from the hours that begin in it, without histograms."""
        return Usage(*self.hours.sum(begin, end))

    def each_hour(self) -> Iterator[Usage]:
        """Yield what happened in each hour that is kept, oldest first, without histograms."""
        width, rows = self.hours.width, self.hours.rows
        return (Usage(*rows[at : at + width]) for at in range(0, len(rows), width))


@dataclass
class PoolTraffic:
    """What was observed of one pool: buckets by uid of the Expert, and what each pod answered last, by uid."""

    experts: dict[str, ExpertTraffic] = field(default_factory=dict)
    answers: dict[str, Observations] = field(default_factory=dict)
    #: When pods were last asked, in seconds since 1970; 0: never.
    asked: float = 0

    def add(self, expert: str, time: float, usage: Usage) -> None:
        """Add what happened to an Expert, given by uid."""
        self.experts.setdefault(expert, ExpertTraffic()).add(time, usage)

    def keep(self, experts: Iterable[str]) -> None:
        """Forget the Experts that are not among some uids."""
        kept = set(experts)
        self.experts = {uid: traffic for uid, traffic in self.experts.items() if uid in kept}

    def packed(self, limit: int = WRITTEN_BYTES) -> bytes:
        """Return the state as compressed bytes. Where it is too large, the oldest hours are left out."""
        hours = _HOURS
        while len(data := self._packed(hours)) > limit and hours:
            hours //= 2
        return data

    def _packed(self, hours: int) -> bytes:
        head: list[dict[str, Any]] = []
        planes: list[bytes] = []
        for uid, traffic in sorted(self.experts.items()):
            parts = []
            for series in traffic.all_series:
                left_out = max(0, len(series) - hours) if series is traffic.hours else 0
                rows = series.rows[left_out * series.width :]
                parts.append([series.start + left_out, len(rows) // series.width])
                planes += _planes(rows, series.width)
            head.append({"uid": uid, "series": parts})
        text = json.dumps(
            {
                "version": 1,
                "asked": self.asked,
                "experts": head,
                "pods": {uid: json.loads(answer.to_json()) for uid, answer in sorted(self.answers.items())},
            },
            separators=(",", ":"),
        )
        return zlib.compress(text.encode() + b"\n" + b"".join(planes), 6)


def unpacked(data: bytes) -> PoolTraffic:
    """Return the state that ``packed`` wrote. Raises ValueError if it is anything else."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, _UNPACKED_BYTES)
    except zlib.error as error:
        raise ValueError(f"it is not compressed as it should be: {error}") from None
    head, found, planes = text.partition(b"\n")
    if not found or unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("it is cut off, or too large")
    try:
        return _restored(json.loads(head), planes)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it has another form: {error!r}") from None


def _restored(head: Mapping[str, Any], planes: bytes) -> PoolTraffic:
    if head["version"] != 1:
        raise ValueError(f"it has version {head['version']!r}, and 1 is what can be read here")
    traffic, at = PoolTraffic(asked=float(head["asked"])), 0
    for entry in head["experts"]:
        expert = traffic.experts.setdefault(str(entry["uid"]), ExpertTraffic())
        for series, (start, length) in zip(expert.all_series, entry["series"], strict=True):
            size = 2 * series.width * length
            if not 0 <= length <= series.buckets or len(planes) < at + size:
                raise ValueError("it has other numbers of buckets than it says")
            series.start, series.rows = int(start), _joined(planes[at : at + size], series.width)
            at += size
    if at != len(planes):
        raise ValueError("it has more buckets than it says")
    answers = {str(uid): Observations.model_validate(answer) for uid, answer in head["pods"].items()}
    return replace(traffic, answers=answers)


def _planes(rows: "array[float]", width: int) -> Iterator[bytes]:
    """Yield the columns of rows as bfloat16, which has 8 significant bits: first all high bytes, then all low bytes.

    High bytes of a column are nearly all the same, so they take next to no space once compressed.
    """
    for column in range(width):
        numbers = rows[column::width]
        raw = _little(numbers)
        # Half of the last bit that is kept is added to every number at once, so that numbers are rounded and not cut.
        # No number carries into the next one, because none is negative or not finite.
        half = int.from_bytes(b"\x00\x80\x00\x00" * len(numbers), "little")
        raw = (int.from_bytes(raw, "little") + half).to_bytes(len(raw), "little")
        yield raw[3::4] + raw[2::4]


def _joined(planes: bytes, width: int) -> "array[float]":
    """Return the rows that ``_planes`` took apart. Raises ValueError for a number that is negative or not finite."""
    length = len(planes) // (2 * width)
    rows = array("f", bytes(4 * width * length))
    for column in range(width):
        plane = planes[2 * length * column : 2 * length * (column + 1)]
        raw = bytearray(4 * length)
        raw[3::4], raw[2::4] = plane[:length], plane[length:]
        numbers = array("f", bytes(raw))
        if sys.byteorder == "big":
            numbers.byteswap()
        if not all(0 <= number < float("inf") for number in numbers):
            raise ValueError("it has numbers that are negative or not finite")
        rows[column::width] = numbers
    return rows


def _little(numbers: "array[float]") -> bytes:
    if sys.byteorder == "big":
        numbers = array("f", numbers)
        numbers.byteswap()
    return numbers.tobytes()
