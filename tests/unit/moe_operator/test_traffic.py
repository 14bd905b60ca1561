"""Buckets: exact sums, clocks that jump, and what is written and read back."""

import random
import zlib

import pytest

from moe_formats.observations import SECONDS, TENTHS, ExpertCounts, Observations
from moe_operator.traffic import HOUR, MINUTES, WRITTEN_BYTES, ExpertTraffic, PoolTraffic, Usage, unpacked

NOON = 1_700_000_400.0 // HOUR * HOUR


def usage(requests: float = 1, **parts: float) -> Usage:
    return Usage(observed_seconds=30, answered=requests, **parts)


def test_a_span_holds_the_buckets_that_begin_in_it() -> None:
    traffic = ExpertTraffic()
    for minute in range(60):
        traffic.add(NOON + 60 * minute, usage())
    assert traffic.of_day(NOON, NOON + HOUR).answered == 60
    assert traffic.of_day(NOON + MINUTES, NOON + 2 * MINUTES).answered == 5
    assert traffic.of_day(NOON + 1, NOON + 2 * MINUTES).answered == 5
    assert traffic.of_day(NOON - HOUR, NOON).answered == 0
    assert traffic.of_hours(NOON, NOON + HOUR).answered == 60
    assert traffic.of_day(NOON, NOON + HOUR).requests == traffic.of_hours(NOON, NOON + HOUR).requests == 60


def test_histograms_are_those_of_the_hours_of_a_span() -> None:
    traffic = ExpertTraffic()
    streamed, routed = [0.0] * (len(SECONDS) + 1), [0.0] * len(TENTHS)
    streamed[3], routed[9] = 2, 5
    for hour in range(2):
        traffic.add(NOON + hour * HOUR, Usage(first_token=tuple(streamed), confidence=tuple(routed)))
    day = traffic.of_day(NOON, NOON + 2 * HOUR)
    assert (day.first_token[3], sum(day.first_token), day.confidence[9], sum(day.confidence)) == (
        4,
        4,
        10,
        10,
    )


def test_a_day_of_minutes_and_a_month_of_hours_are_kept_and_no_more() -> None:
    traffic = ExpertTraffic()
    for hour in range(24 * 40):
        traffic.add(NOON + hour * HOUR, usage())
    end = NOON + 24 * 40 * HOUR
    assert traffic.of_day(end - 24 * HOUR, end).answered == 24
    assert len(traffic.fine) == 289 and len(traffic.histograms) == 25
    assert traffic.of_hours(0, end).answered == 720
    assert len(list(traffic.each_hour())) == 720


def test_a_gap_is_a_time_that_was_not_observed() -> None:
    traffic = ExpertTraffic()
    traffic.add(NOON, usage())
    traffic.add(NOON + 10 * HOUR, usage())
    assert [item.observed_seconds for item in traffic.each_hour()] == [30, *[0] * 9, 30]
    traffic.add(NOON + 24 * 365 * HOUR, usage())
    assert traffic.of_hours(0, NOON + 24 * 366 * HOUR).answered == 1


def test_a_clock_that_jumps_an_hour_back_and_forth_counts_everything_once() -> None:
    traffic = ExpertTraffic()
    for time in (NOON, NOON + HOUR, NOON - HOUR, NOON, NOON + HOUR):
        traffic.add(time, usage())
    assert traffic.of_hours(0, NOON + 2 * HOUR).answered == 5
    assert traffic.of_day(0, NOON + 2 * HOUR).answered == 5


def test_a_clock_that_was_a_year_ahead_leaves_nothing_in_the_future() -> None:
    traffic = ExpertTraffic()
    traffic.add(NOON, usage())
    traffic.add(NOON + 365 * 24 * HOUR, usage())
    traffic.add(NOON + HOUR, usage())
    assert traffic.of_hours(0, NOON + 400 * 24 * HOUR).answered == 1
    assert traffic.fine.newest() == NOON + HOUR


def busy(experts: int, hours: int, seed: int = 0) -> PoolTraffic:
    """A pool whose Experts have noisy traffic, as far as numbers matter to compression."""
    draw, pool = random.Random(seed), PoolTraffic(asked=NOON)
    for number in range(experts):
        mean = draw.choice([30, 300, 3000])
        for hour in range(hours):
            for minutes in range(12) if hour >= hours - 24 else (0,):
                requests = max(0, round(draw.gauss(mean, mean**0.5)))
                streamed = [
                    max(0.0, round(draw.gauss(requests / 15, (requests / 15) ** 0.5))) for _ in range(15)
                ]
                routed = [
                    max(0.0, round(draw.gauss(requests / 10, (requests / 10) ** 0.5))) for _ in range(10)
                ]
                pool.add(
                    f"00000000-0000-0000-0000-{number:012d}",
                    NOON + hour * HOUR + minutes * MINUTES,
                    Usage(
                        observed_seconds=300,
                        replica_seconds=600,
                        in_flight_seconds=abs(draw.gauss(requests * 2, requests**0.5)),
                        answered=requests,
                        failed=draw.random() < 0.01,
                        prompt_tokens=abs(draw.gauss(200, 20)) * requests,
                        completion_tokens=abs(draw.gauss(60, 6)) * requests,
                        first_token=tuple(streamed),
                        confidence=tuple(routed),
                    ),
                )
    return pool


def test_what_is_written_is_read_back_to_eight_bits() -> None:
    pool = busy(2, 50)
    pool.answers = {"pod": Observations(boot="0" * 16, experts={"code": ExpertCounts(answered=7)})}
    again = unpacked(pool.packed())
    assert (again.asked, again.answers) == (NOON, pool.answers)
    assert again.experts.keys() == pool.experts.keys()
    for uid, traffic in pool.experts.items():
        for begin in (NOON, NOON + 30 * HOUR, NOON + 49 * HOUR):
            before, after = (
                traffic.of_day(begin, begin + HOUR),
                again.experts[uid].of_day(begin, begin + HOUR),
            )
            assert after.sums() == pytest.approx(before.sums(), rel=2**-8)
            assert after.histograms() == pytest.approx(before.histograms(), rel=2**-8)
    assert unpacked(again.packed()).packed() == again.packed()


def test_rounding_favours_neither_side() -> None:
    pool = busy(1, 720)
    (before,), (after,) = pool.experts.values(), unpacked(pool.packed()).experts.values()
    whole = (0.0, NOON + 1000 * HOUR)
    assert after.of_hours(*whole).prompt_tokens == pytest.approx(
        before.of_hours(*whole).prompt_tokens, rel=5e-4
    )


def test_what_is_written_is_bounded_by_leaving_out_the_oldest_hours() -> None:
    pool = busy(4, 720)
    limit = 15_000
    written = pool.packed(limit)
    assert len(written) <= limit < len(pool.packed()) < WRITTEN_BYTES
    (after, *_), (before, *_) = unpacked(written).experts.values(), pool.experts.values()
    kept = len(after.hours)
    assert 0 < kept < 720
    end = NOON + 720 * HOUR
    assert after.of_hours(end - kept * HOUR, end).answered == pytest.approx(
        before.of_hours(end - kept * HOUR, end).answered, rel=0.01
    )


GOOD = busy(1, 30).packed()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        GOOD[:-20],
        zlib.compress(b"no line"),
        zlib.compress(b"[]\n"),
        zlib.compress(b"{}\n"),
        zlib.compress(b'{"version":2,"asked":0,"experts":[],"pods":{}}\n'),
        zlib.compress(
            b'{"version":1,"asked":0,"experts":[{"uid":"a","series":[[0,1],[0,0],[0,0]]}],"pods":{}}\n'
        ),
        zlib.compress(b'{"version":1,"asked":0,"experts":[],"pods":{}}\nmore'),
        zlib.compress(
            b'{"version":1,"asked":0,"experts":[{"uid":"a","series":[[0,-1],[0,0],[0,0]]}],"pods":{}}\n'
        ),
        zlib.compress(b'{"version":1,"asked":0,"experts":[],"pods":{"x":{"boot":"?"}}}\n'),
        zlib.compress(
            b'{"version":1,"asked":0,"experts":[{"uid":"a","series":[[0,1],[0,0],[0,0]]}],"pods":{}}\n'
            + b"\xff" * 18
        ),
        zlib.compress(b"[" * 100_000 + b"\n"),
    ],
)
def test_what_is_not_a_state_is_an_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        unpacked(data)


def test_a_state_that_unpacks_a_thousandfold_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        unpacked(zlib.compress(bytes(80 << 20), 9))


def test_experts_that_are_gone_are_forgotten() -> None:
    pool = busy(3, 2)
    first, *_ = pool.experts
    pool.keep([first, "new"])
    assert list(pool.experts) == [first]
