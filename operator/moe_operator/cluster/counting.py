"""Turns the counts that pods give into what happened between two rounds of asking. Pure functions.

A pod counts from its start, and says by its boot which start that was. What happened is the difference to its last answer.
Each of these loses at most what happened since the last answer, and counts nothing twice:

- a pod that went away;
- a process that started again, whose counts begin at 0;
- a pod that is seen for the first time by an operator that does not know what was already counted;
- counts that ran backwards or grew faster than any process can, which are not believed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from moe_formats.observations import ExpertCounts, Observations
from moe_operator.traffic import Usage

#: Most events per second, and most requests at the same time, that one pod is believed to have had.
MOST_PER_SECOND = 1e6
#: Seconds between two rounds that count as observed; the rest of a longer pause was not.
LONGEST_ROUND = 90.0

_ZERO = ExpertCounts()


@dataclass(frozen=True, slots=True)
class Round:
    """One round in which the pods of a pool were asked."""

    #: When, in seconds since 1970, and the seconds since the round before; 0 for the first one.
    time: float
    elapsed: float
    #: When the round before was; None for the first one. Pods that were created later are known from their start.
    before: datetime | None

    @property
    def observed(self) -> float:
        """Seconds before this round that count as observed."""
        return min(max(self.elapsed, 0.0), LONGEST_ROUND)


def happened(
    last: Observations | None, answer: Observations, created: datetime, asked: Round
) -> Mapping[str, Usage]:
    """Return what happened at one pod since its last answer, by name of the Expert."""
    if last is None and (asked.before is None or created < asked.before):
        return {}
    began = last.experts if last is not None and last.boot == answer.boot else {}
    seconds = max(asked.elapsed, 1.0)
    differences = {
        name: _difference(began.get(name, _ZERO), counts, seconds) for name, counts in answer.experts.items()
    }
    return {name: usage for name, usage in differences.items() if usage is not None}


def _difference(before: ExpertCounts, after: ExpertCounts, seconds: float) -> Usage | None:
    """Return what was counted between two answers; None if that cannot be."""
    earlier, later = _numbers(before), _numbers(after)
    numbers = {name: later[name] - earlier[name] for name in later}
    first_token = _each(before.first_token_seconds, after.first_token_seconds)
    confidence = _each(before.confidence, after.confidence)
    everything = [*numbers.values(), *first_token, *confidence]
    if not all(0 <= number <= MOST_PER_SECOND * seconds for number in everything):
        return None
    return Usage(**numbers, first_token=first_token, confidence=confidence)


def _numbers(counts: ExpertCounts) -> dict[str, float]:
    return counts.model_dump(exclude={"first_token_seconds", "confidence"})


def _each(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[float, ...]:
    if before and len(before) != len(after):
        return (-1.0,)  # Not the counts of one process.
    return tuple(float(late - early) for early, late in zip(before or (0,) * len(after), after, strict=True))
