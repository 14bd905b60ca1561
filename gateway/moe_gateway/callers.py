"""What one caller may take of a gateway: requests at the same time, and requests per minute. Callers are told apart by key.

Requests per minute are counted by a bucket that refills evenly: after a pause there is a minute's worth of requests in it, and
then as many come back as the limit says. Each gateway pod counts for itself, in memory.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moe_formats.routing_policy import KeyLimits


class TooManyRequests(Exception):
    """A caller exceeds a limit of its key; `retry_after` is in seconds, `code` is that of OpenAI's errors."""

    def __init__(self, message: str, code: str, retry_after: int) -> None:
        """Take what the caller did, and when it may try again."""
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class Callers:
    """Counts the requests of each caller; one without a key is never limited."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nobody; tests pass their own clock."""
        self._clock = clock
        self._in_flight: Counter[str] = Counter()
        #: For each caller, how many requests its bucket had left, and when that was.
        self._left: dict[str, tuple[float, float]] = {}

    def count(self, caller: str | None, limits: KeyLimits | None) -> None:
        """Count a request; raises TooManyRequests, and counts nothing, if the caller has none left."""
        most = limits.requests_per_minute if limits is not None else None
        if caller is None or most is None:
            return
        now = self._clock()
        left, then = self._left.get(caller, (float(most), now))
        left = min(most, left + (now - then) * most / 60)
        if left < 1:
            raise TooManyRequests(
                f"this API key may send {most} requests per minute",
                "rate_limit_exceeded",
                math.ceil((1 - left) * 60 / most - 1e-6),
            )
        self._left[caller] = (left - 1, now)

    @contextmanager
    def in_flight(self, caller: str | None, limits: KeyLimits | None) -> Iterator[None]:
        """Count a request as in flight until the block is left; raises TooManyRequests if the caller has too many."""
        if caller is None:
            yield
            return
        most = limits.max_concurrency if limits is not None else None
        if most is not None and self._in_flight[caller] >= most:
            raise TooManyRequests(
                f"this API key has {most} request{'s' * (most > 1)} in flight, which is the most that it may have at once",
                "too_many_requests",
                1,
            )
        self._in_flight[caller] += 1
        try:
            yield
        finally:
            self._in_flight[caller] -= 1
            if not self._in_flight[caller]:
                del self._in_flight[caller]
