"""What a gateway or an expert server has counted since it started: its answer to ``GET /observations``.

The operator asks every half minute and works with differences. Nothing here tells what anybody asked or was answered.
"""

import secrets
from bisect import bisect_left
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from moe_formats.format import Format
from moe_formats.names import Name

#: Upper edges of the buckets of seconds: 1/128 s doubled up to 64 s. What took longer is in one more bucket.
SECONDS = tuple(2.0**power for power in range(-7, 7))
#: Upper edges of the buckets of a probability: tenths.
TENTHS = tuple(tenth / 10 for tenth in range(1, 11))

#: A number of events. The bound only keeps nonsense out: no process counts this far.
Count = Annotated[int, Field(ge=0, le=10**15)]


class ExpertCounts(Format):
    """What was counted for one Expert. A gateway knows requests, a server knows tokens; each leaves the rest at 0."""

    answered: Count = Field(
        default=0, description="Requests that were answered, also with a refusal of what they asked."
    )
    failed: Count = Field(
        default=0, description="Requests without a whole answer: no server answered, or the answer broke off."
    )
    left: Count = Field(default=0, description="Requests whose client left before it had the whole answer.")
    stood_in: Count = Field(default=0, description="Requests that this Expert took as the pool's fallback.")
    unmet: Count = Field(
        default=0,
        description="Requests routed here although their prompt looked like none of the pool's domains.",
    )
    in_flight_seconds: float = Field(
        default=0, ge=0, le=1e15, description="Sum over all requests of the seconds that they were under way."
    )
    first_token_seconds: tuple[Count, ...] = Field(
        default=(),
        max_length=len(SECONDS) + 1,
        description="Streamed answers by seconds to the first token (SECONDS).",
    )
    confidence: tuple[Count, ...] = Field(
        default=(),
        max_length=len(TENTHS),
        description="Routed requests by the probability of the chosen Expert (TENTHS).",
    )
    prompt_tokens: Count = Field(default=0, description="Tokens of prompts that were read.")
    completion_tokens: Count = Field(default=0, description="Tokens that were generated.")


class Observations(Format):
    """Counts by Expert since the process started."""

    boot: str = Field(
        pattern=r"^[0-9a-f]{16}$",
        description="Drawn when the process starts: with another one, counts began at 0 again.",
    )
    experts: dict[Name, ExpertCounts] = Field(default_factory=dict, max_length=256)


def new_boot() -> str:
    """Return an identifier for a process that has just started."""
    return secrets.token_hex(8)


class Tally:
    """A histogram that is being counted."""

    def __init__(self, edges: Sequence[float], *, beyond: bool) -> None:
        """Count in buckets with these upper edges; ``beyond`` adds a bucket for everything above the last edge."""
        self._edges = edges
        self._last = len(edges) - (0 if beyond else 1)
        self.counts = [0] * (self._last + 1)

    def add(self, value: float) -> None:
        """Count a value. A value on an edge belongs to the bucket below it."""
        self.counts[min(bisect_left(self._edges, value), self._last)] += 1
