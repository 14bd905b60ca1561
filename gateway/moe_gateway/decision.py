"""Which Expert answers a request, how sure that is, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: What decided a request. Pinned: the client named the Expert. Fallback: the strategy could not decide, or no
#: server of the Expert that it chose answers. Conversation: it stayed with the Expert that answered before.
SettledBy = Literal["Distilled", "Posterior", "Pinned", "Fallback", "Conversation"]


@dataclass(frozen=True)
class Decision:
    """The outcome of routing one request.

    `confidence` is the probability of the chosen Expert; None if the strategy computed none.
    `bits_per_byte` is how well each Expert encodes the routed text; empty if the strategy did not measure it.
    """

    expert: str
    strategy: SettledBy
    why: str
    probabilities: Mapping[str, float] = field(default_factory=dict)
    confidence: float | None = None
    bits_per_byte: Mapping[str, float] = field(default_factory=dict)
