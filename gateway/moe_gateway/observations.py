"""Counts per Expert what the operator needs to know of traffic (``GET /observations``), without keeping a prompt."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from moe_formats.observations import SECONDS, TENTHS, ExpertCounts, Observations, Tally, new_boot

#: Outcome of a request whose client has left, as in record.py.
_LEFT = 499


@dataclass
class _Counting:
    """The counts of one Expert, and the requests that are under way."""

    answered: int = 0
    failed: int = 0
    left: int = 0
    stood_in: int = 0
    unmet: int = 0
    first_token: Tally = field(default_factory=lambda: Tally(SECONDS, beyond=True))
    confidence: Tally = field(default_factory=lambda: Tally(TENTHS, beyond=False))
    under_way: int = 0
    in_flight_seconds: float = 0
    since: float = 0

    def advance(self, now: float) -> None:
        """Add the time since the last call to that of the requests under way."""
        self.in_flight_seconds += self.under_way * max(0.0, now - self.since)
        self.since = now


class Counts:
    """The counts of all Experts since the gateway started."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take a clock that never runs backwards, in seconds."""
        self._clock = clock
        self._boot = new_boot()
        self._experts: dict[str, _Counting] = {}

    @contextmanager
    def under_way(self, expert: str) -> Iterator[None]:
        """Count the time of a request while an Expert works on it."""
        counting = self._of(expert)
        counting.advance(self._clock())
        counting.under_way += 1
        try:
            yield
        finally:
            counting.advance(self._clock())
            counting.under_way -= 1

    def routed(self, expert: str, confidence: float, *, unmet: bool) -> None:
        """Count how sure the choice of an Expert was, and whether the prompt looked like none of the pool's domains."""
        counting = self._of(expert)
        counting.confidence.add(confidence)
        counting.unmet += unmet

    def ended(self, expert: str, outcome: int, *, stood_in: bool, first_token_seconds: float | None) -> None:
        """Count a request by its outcome (record.py says which there are); a streamed one with the time to its first token."""
        counting = self._of(expert)
        if outcome == _LEFT:
            counting.left += 1
        elif outcome >= 500:
            counting.failed += 1
        else:
            counting.answered += 1
        counting.stood_in += stood_in
        if first_token_seconds is not None:
            counting.first_token.add(first_token_seconds)

    def observations(self, experts: Collection[str]) -> Observations:
        """Return the counts of some Experts, with the time of requests under way up to now."""
        now = self._clock()
        known = {name: self._experts[name] for name in experts if name in self._experts}
        for counting in known.values():
            counting.advance(now)
        return Observations(
            boot=self._boot,
            experts={
                name: ExpertCounts(
                    answered=counting.answered,
                    failed=counting.failed,
                    left=counting.left,
                    stood_in=counting.stood_in,
                    unmet=counting.unmet,
                    in_flight_seconds=round(counting.in_flight_seconds, 3),
                    first_token_seconds=tuple(counting.first_token.counts),
                    confidence=tuple(counting.confidence.counts),
                )
                for name, counting in known.items()
            },
        )

    def _of(self, expert: str) -> _Counting:
        return self._experts.setdefault(expert, _Counting())
