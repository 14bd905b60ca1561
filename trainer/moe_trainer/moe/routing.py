"""What a router did with a batch. The layer computes with it; losses and load metrics are made of it."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Routing:
    """The choice of a batch's tokens, and the sums that balancing needs.

    The layer never counts in place: counts leave the forward pass as an output, so a forward that is run
    again (activation recomputation) counts nothing twice. Nothing here waits for a device: what a host
    wants to know it reads when it synchronises anyway.
    """

    experts_NK: Tensor  #: The in-layer experts of each token, int64; E stands for a slot that was dropped.
    weights_NK: Tensor  #: Their weights in the token's output, at least fp32; carries gradient.
    counts_GE: Tensor  #: Slots that asked for each in-layer expert (before any was dropped), int64.
    probabilities_GE: Tensor  #: Mean router probability of each in-layer expert; carries gradient.
    logsumexp_N: Tensor  #: Log-sum-exp of each token's logits; carries gradient.
    dropped: Tensor  #: Slots that were dropped because their in-layer expert was full: one int64.
    logit_rms: Tensor  #: Root mean square of all logits: one number, without gradient.

    @property
    def experts(self) -> int:
        """In-layer experts of the layer, E."""
        return self.counts_GE.shape[1]

    @property
    def finite(self) -> Tensor:
        """Whether every logit was a finite number: one bool, on the routing's device.

        On the CPU the router has raised already where this would be false (router.py).
        """
        return self.logit_rms.isfinite()


Scores = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class RouterConfig:
    """How a layer's router chooses. Raises ValueError for sizes that do not fit together."""

    experts: int  #: In-layer experts, E.
    active: int  #: Of which each token uses this many, K.
    renormalise: bool = True  #: The weights of a token sum to 1 (before ``scale``).
    scores: Scores = "softmax"
    scale: float = 1.0  #: Factor of all weights.
    expert_groups: int = 1  #: The in-layer experts form this many groups of the same size, P …
    chosen_groups: int = 1  #: … and a token chooses among those of its best groups only.

    def __post_init__(self) -> None:
        if not 0 < self.active <= self.experts:
            raise ValueError(
                f"active is {self.active}, but a token uses 1 to {self.experts} in-layer experts: "
                "lower it or raise experts"
            )
        if self.expert_groups < 1 or self.experts % self.expert_groups:
            raise ValueError(
                f"{self.experts} in-layer experts do not form {self.expert_groups} groups of one size: "
                "expert_groups must divide experts"
            )
        reach = self.chosen_groups * self.experts // self.expert_groups
        if not (0 < self.chosen_groups <= self.expert_groups and reach >= self.active):
            raise ValueError(
                f"chosen_groups is {self.chosen_groups} of {self.expert_groups}, which leaves {reach} in-layer "
                f"experts to choose {self.active} from: set it between "
                f"{math.ceil(self.active * self.expert_groups / self.experts)} and {self.expert_groups}"
            )
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale is {self.scale}, but the weights' factor must be above 0")
