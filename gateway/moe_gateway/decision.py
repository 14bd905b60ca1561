"""Which Expert answers a request, how sure that is, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from moe_formats.routing_policy import Familiar

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

    def is_unmet(self, familiar: Familiar) -> bool:
        """Return whether the prompt looks like none of the pool's own domains, as far as the strategy measured it.

        Requests that the strategy did not choose an Expert for say nothing about that.
        """
        if self.strategy == "Posterior" and self.bits_per_byte and familiar.bits_per_byte is not None:
            return min(self.bits_per_byte.values()) > familiar.bits_per_byte
        if self.strategy == "Distilled" and self.confidence is not None and familiar.confidence is not None:
            return self.confidence < familiar.confidence
        return False
