"""Clocks, and rounds in which every layer has its turn.

All layers run in one process, one after the other, in every round; ratios are taken within rounds, so what
slows the machine down for a while slows all alike.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch

#: A step does its work on the batch of a number, and calls ``lap`` where its first part begins and where each ends.
Step = Callable[[int, Callable[[], None]], None]


class Clock(Protocol):
    """Times the parts of a step."""

    def time(self, step: Step, batch: int) -> list[float]:
        """Return the milliseconds of each part."""
        ...


class CpuClock:
    """CPU time of this process, which computes in one thread: what else runs on the machine is not counted."""

    def time(self, step: Step, batch: int) -> list[float]:
        """Return the milliseconds of each part."""
        laps: list[float] = []
        step(batch, lambda: laps.append(time.process_time()))
        return [1000 * (end - start) for start, end in pairwise(laps)]


class CudaClock:
    """Events on the stream; what the second-level cache held is overwritten before."""

    def __init__(self) -> None:
        self.swept = torch.empty(256 << 20, dtype=torch.int8, device="cuda")

    def time(self, step: Step, batch: int) -> list[float]:
        """Return the milliseconds of each part; raises torch's error if the device failed."""
        self.swept.zero_()
        laps: list[torch.cuda.Event] = []
        step(batch, lambda: laps.append(self._record()))
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in pairwise(laps)]

    def _record(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


@dataclass(frozen=True)
class Spread:
    """Median, and what a fifth of the samples lie below and above."""

    median: float
    p20: float
    p80: float

    @staticmethod
    def of(samples: Sequence[float]) -> "Spread":
        """Return the spread of at least one sample."""
        ordered = sorted(samples)
        last = len(ordered) - 1
        return Spread(statistics.median(ordered), ordered[round(0.2 * last)], ordered[round(0.8 * last)])

    def to_json(self) -> dict[str, float]:
        """Return five significant digits of each."""
        return {name: float(f"{value:.5g}") for name, value in vars(self).items()}


class Samples:
    """Milliseconds of every part of every step, by round. A step that takes long takes part in few rounds."""

    def __init__(self) -> None:
        self.rounds: dict[str, list[list[float]]] = {}

    def add(self, name: str, parts: list[float]) -> None:
        """Add a round's times."""
        self.rounds.setdefault(name, []).append(parts)

    def total(self, name: str) -> list[float]:
        """Return the sum of a step's parts, by round."""
        return [sum(parts) for parts in self.rounds[name]]

    def spreads(self, name: str, parts: Sequence[str]) -> dict[str, Any]:
        """Return the spread of each part and, if there are several, of their sum."""
        found = {
            part: Spread.of([times[i] for times in self.rounds[name]]).to_json()
            for i, part in enumerate(parts)
        }
        return found | ({"total": Spread.of(self.total(name)).to_json()} if len(parts) > 1 else {})

    def ratio(self, above: str, below: str) -> Spread:
        """Return the ratio of two steps' times within the rounds that both took part in."""
        return Spread.of([a / b for a, b in zip(self.total(above), self.total(below), strict=False)])


#: A step that takes this many times as long as the median of all is timed in the first rounds only.
SLOW = 8.0
SLOW_ROUNDS = 3


def take_turns(
    steps: Mapping[str, Step], clock: Clock, rounds: int, batches: int, announce: Callable[[str], None]
) -> Samples:
    """Time every step in every round, each round in another order; ``announce`` is told of first turns."""
    samples = Samples()
    first: dict[str, float] = {}
    for name, step in steps.items():
        announce(name)
        first[name] = min(sum(clock.time(step, batch)) for batch in range(2))
    usual = statistics.median(first.values()) if first else 0.0
    for number in range(rounds):
        # Drawn, not turned: whoever always came after a layer with the same weights would find them in the cache.
        for name in random.Random(number).sample(list(steps), len(steps)):
            if first[name] < SLOW * usual or number < SLOW_ROUNDS:
                samples.add(name, clock.time(steps[name], number % batches))
    return samples
