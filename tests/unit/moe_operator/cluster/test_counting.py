"""Differences of counts: what happened is counted once, whatever restarts, and what cannot be is not believed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moe_formats.observations import ExpertCounts, Observations
from moe_operator.cluster.counting import LONGEST_ROUND, Round, happened

NOW = datetime(2026, 1, 2, tzinfo=UTC)
BEFORE = NOW - timedelta(seconds=30)
OLD = NOW - timedelta(days=1)
ROUND = Round(time=NOW.timestamp(), elapsed=30, before=BEFORE)
FIRST = Round(time=NOW.timestamp(), elapsed=0, before=None)


def said(boot: str = "a", **counts: Any) -> Observations:
    return Observations(boot=boot * 16, experts={"code": ExpertCounts(**counts)})


def test_what_happened_is_the_difference() -> None:
    last = said(answered=5, in_flight_seconds=2.5, confidence=(1, *[0] * 9))
    now = said(answered=7, in_flight_seconds=4, prompt_tokens=9, confidence=(1, 2, *[0] * 8))
    usage = happened(last, now, OLD, ROUND)["code"]
    assert (usage.answered, usage.in_flight_seconds, usage.prompt_tokens) == (2, 1.5, 9)
    assert usage.confidence == (0, 2, *[0] * 8) and usage.first_token == ()


def test_a_process_that_started_again_counts_from_its_start() -> None:
    assert happened(said("a", answered=5), said("b", answered=2), OLD, ROUND)["code"].answered == 2


def test_an_expert_that_is_new_to_a_pod_counts_from_the_pods_start() -> None:
    last = Observations(boot="a" * 16)
    assert happened(last, said(answered=2), OLD, ROUND)["code"].answered == 2


@pytest.mark.parametrize(
    ("created", "asked", "counted"),
    [
        (BEFORE + timedelta(seconds=1), ROUND, True),
        (OLD, ROUND, False),
        (BEFORE, FIRST, False),
        (OLD, FIRST, False),
    ],
)
def test_a_pod_that_is_seen_for_the_first_time_counts_only_if_it_is_newer_than_the_round_before(
    created: datetime, asked: Round, counted: bool
) -> None:
    assert ("code" in happened(None, said(answered=2), created, asked)) is counted


@pytest.mark.parametrize(
    ("last", "now"),
    [
        ({"answered": 5}, {"answered": 4}),
        ({"in_flight_seconds": 5}, {"in_flight_seconds": 4}),
        ({"confidence": (3, *[0] * 9)}, {"confidence": (2, *[0] * 9)}),
        ({"confidence": (3, *[0] * 9)}, {"confidence": (3,)}),
        ({}, {"answered": 10**12}),
        ({}, {"completion_tokens": 10**15}),
        ({}, {"in_flight_seconds": 1e15}),
    ],
)
def test_counts_that_cannot_be_are_not_believed(last: dict[str, Any], now: dict[str, Any]) -> None:
    assert happened(said(**last), said(**now), OLD, ROUND) == {}


def test_a_long_pause_is_not_all_observed() -> None:
    observed = [Round(0, elapsed, BEFORE).observed for elapsed in (30.0, 3600.0, -5.0)]
    assert observed == [30, LONGEST_ROUND, 0]
