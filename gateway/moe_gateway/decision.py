"""Which Expert takes a request, how sure that is, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: What settled a request. Pinned: the client named the Expert. Fallback: the strategy could not decide, or
#: nobody answers for the Expert it chose.
#: Conversation: it stayed with the Expert that answered before.
SettledBy = Literal["Distilled", "Posterior", "Pinned", "Fallback", "Conversation"]


@dataclass(frozen=True)
class Decision:
    """The outcome of routing one request.

    `confidence` is the probability of the chosen Expert, absent where nothing measured it.
    `bits_per_byte` is how well each Expert codes the routed text, where the strategy measured that.
    """

    expert: str
    strategy: SettledBy
    why: str
    probabilities: Mapping[str, float] = field(default_factory=dict)
    confidence: float | None = None
    bits_per_byte: Mapping[str, float] = field(default_factory=dict)
