"""How much of a gateway one caller takes, by a clock that the test moves."""

import pytest

from moe_formats.routing_policy import KeyLimits
from moe_gateway.callers import Callers, TooManyRequests


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_requests_per_minute_come_back_one_by_one() -> None:
    clock = Clock()
    callers, limits = Callers(clock), KeyLimits(requests_per_minute=6)
    for _ in range(6):
        callers.count("a", limits)
    with pytest.raises(TooManyRequests) as raised:
        callers.count("a", limits)
    assert raised.value.retry_after == 10
    callers.count("b", limits)
    clock.now += 10
    callers.count("a", limits)
    with pytest.raises(TooManyRequests):
        callers.count("a", limits)
    clock.now += 3600
    for _ in range(6):
        callers.count("a", limits)
    with pytest.raises(TooManyRequests):
        callers.count("a", limits)


def test_a_changed_limit_holds_from_the_next_request_on() -> None:
    clock = Clock()
    callers = Callers(clock)
    for _ in range(60):
        callers.count("a", KeyLimits(requests_per_minute=60))
    clock.now += 60
    callers.count("a", KeyLimits(requests_per_minute=1))
    with pytest.raises(TooManyRequests) as raised:
        callers.count("a", KeyLimits(requests_per_minute=1))
    assert raised.value.retry_after == 60


def test_places_are_given_back_however_a_request_ends() -> None:
    callers, limits = Callers(), KeyLimits(max_concurrency=2)
    with pytest.raises(ZeroDivisionError), callers.in_flight("a", limits), callers.in_flight("a", limits):
        with pytest.raises(TooManyRequests), callers.in_flight("a", limits):
            pass
        with callers.in_flight("b", limits):
            raise ZeroDivisionError
    with callers.in_flight("a", limits), callers.in_flight("a", limits):
        pass


def test_nobody_is_limited_without_a_limit_or_without_keys() -> None:
    callers = Callers()
    for caller, limits in (
        ("a", None),
        ("a", KeyLimits()),
        (None, KeyLimits(max_concurrency=1, requests_per_minute=1)),
    ):
        for _ in range(3):
            callers.count(caller, limits)
        with callers.in_flight(caller, limits), callers.in_flight(caller, limits):
            pass
