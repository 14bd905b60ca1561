"""What a gateway counts per Expert: exact numbers on a clock that the test sets."""

import pytest

from moe_formats.observations import SECONDS, TENTHS, Observations
from moe_gateway.observations import Counts


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_time_under_way_is_counted_while_it_passes() -> None:
    clock = Clock()
    counts = Counts(clock)
    with counts.under_way("code"):
        clock.now += 2
        with counts.under_way("code"):
            clock.now += 3
            assert counts.observations(["code"]).experts["code"].in_flight_seconds == 2 + 2 * 3
        clock.now += 1
    clock.now += 50
    assert counts.observations(["code"]).experts["code"].in_flight_seconds == 2 + 2 * 3 + 1


def test_time_is_counted_also_if_the_request_fails() -> None:
    clock = Clock()
    counts = Counts(clock)
    with pytest.raises(OSError), counts.under_way("code"):
        clock.now += 2
        raise OSError
    clock.now += 2
    assert counts.observations(["code"]).experts["code"].in_flight_seconds == 2


@pytest.mark.parametrize(
    ("outcome", "field"),
    [
        (200, "answered"),
        (400, "answered"),
        (429, "answered"),
        (499, "left"),
        (502, "failed"),
        (503, "failed"),
        (504, "failed"),
    ],
)
def test_every_outcome_counts_once(outcome: int, field: str) -> None:
    counts = Counts()
    counts.ended("code", outcome, stood_in=False, first_token_seconds=None)
    counted = (
        counts.observations(["code"])
        .experts["code"]
        .model_dump(include={"answered", "failed", "left", "stood_in"})
    )
    assert counted == {"answered": 0, "failed": 0, "left": 0, "stood_in": 0} | {field: 1}


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0, 0), (1 / 128, 0), (0.0079, 1), (1, 7), (1.001, 8), (64, 13), (64.1, 14), (1e9, 14)],
)
def test_times_to_the_first_token_are_in_buckets_that_double(seconds: float, bucket: int) -> None:
    counts = Counts()
    counts.ended("code", 200, stood_in=True, first_token_seconds=seconds)
    counted = counts.observations(["code"]).experts["code"]
    assert counted.stood_in == 1
    assert [place for place, number in enumerate(counted.first_token_seconds) if number] == [bucket]
    assert len(counted.first_token_seconds) == len(SECONDS) + 1


@pytest.mark.parametrize(("confidence", "bucket"), [(0, 0), (0.1, 0), (0.25, 2), (0.91, 9), (1, 9)])
def test_confidences_are_in_tenths(confidence: float, bucket: int) -> None:
    counts = Counts()
    counts.routed("code", confidence, unmet=False)
    counted = counts.observations(["code"]).experts["code"].confidence
    assert [place for place, number in enumerate(counted) if number] == [bucket] and len(counted) == len(
        TENTHS
    )


def test_only_the_experts_that_are_asked_for_are_named_and_a_process_has_its_own_boot() -> None:
    first, second = Counts(), Counts()
    for counts in (first, second):
        counts.ended("gone", 200, stood_in=False, first_token_seconds=None)
        assert counts.observations(["code"]).experts == {}
    assert first.observations([]).boot != second.observations([]).boot
    assert Observations.model_validate_json(first.observations(["gone"]).to_json()) == first.observations(
        ["gone"]
    )
