"""RouterConfig: how a router chooses. Routing: what it chose for a batch, from which losses and load are computed."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Routing:
    """The choices for a batch's tokens, and the sums that balancing needs.

    The layer never counts in place: counts are an output of the forward pass, so a forward pass that is run again
    (activation recomputation) counts nothing twice. Nothing here waits for a device: the host reads these tensors
    when it synchronises anyway.
    """

    experts_NK: Tensor  #: The in-layer experts of each token, int64; E marks a dropped slot.
    weights_NK: Tensor  #: Their weights in the token's output, fp32 or wider; differentiable.
    counts_GE: Tensor  #: The number of slots that chose each in-layer expert (before any was dropped), int64.
    probabilities_GE: Tensor  #: The mean router probability of each in-layer expert; differentiable.
    logsumexp_N: Tensor  #: The log-sum-exp of each token's logits; differentiable.
    dropped: (
        Tensor  #: The number of slots that were dropped because their in-layer expert was full: one int64.
    )
    logit_rms: Tensor  #: The root mean square of all logits: one number, not differentiable.

    @property
    def experts(self) -> int:
        """In-layer experts of the layer, E."""
        return self.counts_GE.shape[1]

    @property
    def finite(self) -> Tensor:
        """Whether all logits are finite: one bool, on the routing's device.

        On the CPU the router has already raised an error where this would be false (router.py).
        """
        return self.logit_rms.isfinite()


Scores = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class RouterConfig:
    """How a layer's router chooses. Raises ValueError for sizes that do not fit together."""

    experts: int  #: In-layer experts, E.
    active: int  #: In-layer experts that each token uses, K.
    renormalise: bool = True  #: Whether the weights of a token are made to sum to 1 (before ``scale``).
    scores: Scores = "softmax"
    scale: float = 1.0  #: A factor of all weights.
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
                f"{self.experts} in-layer experts do not form {self.expert_groups} groups of equal size: "
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
