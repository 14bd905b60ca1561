"""How a layer's router chooses."""

import math
from dataclasses import dataclass
from typing import Literal

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
