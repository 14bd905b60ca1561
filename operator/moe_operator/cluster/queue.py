"""The keys that wait to be reconciled. Each waits at most once, and keys that fail wait longer each time.

Keys are in lanes, one lane per pool. At most one key of a lane is handed out at a time, so the decisions of a pool
(admission, promotion, routing) are made one after the other, while other lanes go on. Within a lane, keys whose own
objects have changed take turns with keys that are looked at because something else has changed: neither group waits
for all of the other. Nothing here knows what a key means.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

#: Seconds of delay after the first failure in a row. Each further one doubles it.
FIRST_DELAY = 0.25
#: Longest delay after a failure, in seconds.
LONGEST_DELAY = 60.0


@dataclass
class _Lane(Generic[K]):
    """The waiting keys of a lane: those whose own objects have changed (``ahead``), and the others."""

    ahead: deque[K] = field(default_factory=deque)
    others: deque[K] = field(default_factory=deque)
    #: Whether it is the turn of ``others`` if both groups have keys.
    turn_of_others: bool = False

    def __len__(self) -> int:
        return len(self.ahead) + len(self.others)

    def pop(self) -> K:
        """Remove and return the next key."""
        source = self.others if self.others and (self.turn_of_others or not self.ahead) else self.ahead
        self.turn_of_others = source is self.ahead
        return source.popleft()


class KeyedQueue(Generic[K]):
    """Keys that wait in lanes, some of them with a delay."""

    def __init__(self, lane_of: Callable[[K], Hashable]) -> None:
        """Hand out keys with the same ``lane_of`` one after the other."""
        self._lane_of = lane_of
        self._waiting: dict[Hashable, _Lane[K]] = {}
        self._since: dict[K, float] = {}
        self._busy: dict[Hashable, K] = {}
        self._busy_since: dict[Hashable, float] = {}
        self._again: dict[K, bool] = {}
        self._ready: deque[Hashable] = deque()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()

    def add(self, key: K, *, ahead: bool = False) -> None:
        """Let a key wait to be handed out; if it is under way, once more after that.

        ``ahead`` says whether its own object has changed.
        """
        # A key that is under way keeps its lane, even if its object has moved or gone meanwhile.
        if key in self._busy.values():
            self._again[key] = ahead or self._again.get(key, False)
            return
        name = self._lane_of(key)
        lane = self._waiting.setdefault(name, _Lane())
        if key in self._since:
            if ahead and key in lane.others:
                lane.others.remove(key)
                lane.ahead.append(key)
            return
        self._since[key] = time.monotonic()
        (lane.ahead if ahead else lane.others).append(key)
        if name not in self._busy and len(lane) == 1:
            self._offer(name)

    def add_after(self, key: K, seconds: float) -> None:
        """Add a key after a delay; if it has been given several delays, the earliest counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._ring, key)

    def fail(self, key: K, *, longest: float = LONGEST_DELAY) -> float:
        """Add a key again after it failed, and return its delay in seconds: it doubles each time, up to ``longest``."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(FIRST_DELAY * 2.0 ** min(failures, 20), longest)
        self.add_after(key, delay)
        return delay

    def failures(self, key: K) -> int:
        """Return how often a key has failed since it last succeeded."""
        return self._failures.get(key, 0)

    def succeed(self, key: K) -> None:
        """Forget a key's failures."""
        self._failures.pop(key, None)

    async def take(self) -> K:
        """Wait for a key whose lane is free, and return it. The caller must call ``done`` when it has finished."""
        while not self._ready:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        lane = self._ready.popleft()
        key = self._waiting[lane].pop()
        if not len(self._waiting[lane]):
            del self._waiting[lane]
        del self._since[key]
        self._busy[lane] = key
        self._busy_since[lane] = time.monotonic()
        return key

    def done(self, key: K) -> None:
        """Free the lane of a key, and add the key again if ``add`` was called for it meanwhile."""
        lane = next(lane for lane, busy in self._busy.items() if busy == key)
        del self._busy[lane], self._busy_since[lane]
        if self._waiting.get(lane):
            self._offer(lane)
        if key in self._again:
            self.add(key, ahead=self._again.pop(key))

    def __len__(self) -> int:
        """Return how many keys wait, without those that still have a delay."""
        return len(self._since)

    def oldest_seconds(self) -> float:
        """Return the seconds that the oldest key has waited or been under way; 0 if there is none."""
        starts = [*self._since.values(), *self._busy_since.values()]
        return time.monotonic() - min(starts) if starts else 0.0

    def _offer(self, lane: Hashable) -> None:
        self._ready.append(lane)
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break

    def _ring(self, key: K) -> None:
        del self._timers[key]
        self.add(key)
