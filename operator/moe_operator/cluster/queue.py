"""The keys that wait to be looked at: each once, one at a time per lane, failures ever later.

A lane is a pool: its decisions (admission, promotion, routing) are serial, since at most one key of a lane
is handed out at a time, while other lanes go on. Within a lane, keys whose own objects changed take turns
with those that are only looked at in case: neither waits for all of the other. Nothing here knows what a
key means.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

#: Seconds of delay after the first failure, and the most there ever are.
FIRST_DELAY = 0.25
LONGEST_DELAY = 60.0


@dataclass
class _Lane(Generic[K]):
    """The waiting keys of a lane: those that go ahead, and the others."""

    ahead: deque[K] = field(default_factory=deque)
    others: deque[K] = field(default_factory=deque)
    #: Whose turn it is where both wait.
    turn_of_others: bool = False

    def __len__(self) -> int:
        return len(self.ahead) + len(self.others)

    def pop(self) -> K:
        """Return the next key."""
        source = self.others if self.others and (self.turn_of_others or not self.ahead) else self.ahead
        self.turn_of_others = source is self.ahead
        return source.popleft()


class KeyedQueue(Generic[K]):
    """Waiting keys in lanes, with delays."""

    def __init__(self, lane_of: Callable[[K], Hashable]) -> None:
        """Keys with the same ``lane_of`` are handed out one after the other."""
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
        """Have a key looked at: now, or once more if it is under way; ``ahead`` of those that only may need it."""
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
        """Have a key looked at later; of several times the earliest holds."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._ring, key)

    def fail(self, key: K, *, longest: float = LONGEST_DELAY) -> float:
        """Have a key that failed looked at later, doubling up to ``longest``; return the seconds."""
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
        """Wait for a key whose lane is free; the caller must give it back by ``done``."""
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
        """Free the lane of a key, and queue the key again if it was added meanwhile."""
        lane = next(lane for lane, busy in self._busy.items() if busy == key)
        del self._busy[lane], self._busy_since[lane]
        if self._waiting.get(lane):
            self._offer(lane)
        if key in self._again:
            self.add(key, ahead=self._again.pop(key))

    def __len__(self) -> int:
        """Return how many keys wait; those with a delay do not count."""
        return len(self._since)

    def oldest_seconds(self) -> float:
        """Return how long the longest has waited or been under way; 0 if there is none."""
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
