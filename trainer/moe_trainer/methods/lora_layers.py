"""Low-rank updates beside frozen weights: W' = W + s B A, with A of R x I and B of O x R.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021. The rank R is far below the inputs I and
the outputs O, so A and B are few numbers. B starts at zero: then W' is W.

Shapes: E in-layer experts, D hidden, F inner, R rank.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe_trainer.moe.layer import InLayerExperts


class LowRank(nn.Module):
    """The update of one matrix, or of a stack of them: A (…, R, I) and B (…, O, R)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        """Make a zero update for a weight of (…, O, I)."""
        super().__init__()
        *stack, outputs, inputs = weight.shape
        self.down_RI = nn.Parameter(weight.new_zeros(*stack, rank, inputs))
        self.up_OR = nn.Parameter(weight.new_zeros(*stack, outputs, rank))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw A uniformly within 1/sqrt(I), as PEFT does, and leave the update at zero."""
        bound = 1 / math.sqrt(self.down_RI.shape[-1])
        drawn = torch.empty(self.down_RI.shape, device="cpu").uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            self.down_RI.copy_(drawn)
            self.up_OR.zero_()

    def added_to(self, weight: Tensor, scale: float) -> Tensor:
        """Return W + s B A."""
        if weight.dim() == 2:
            return torch.addmm(weight, self.up_OR, self.down_RI, alpha=scale)
        return torch.baddbmm(weight, self.up_OR, self.down_RI, alpha=scale)


class LoRALinear(nn.Module):
    """A linear layer whose weight is frozen, and its update: y = W x + s B (A x)."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.lora = LowRank(linear.weight, rank)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        update = F.linear(F.linear(x, self.lora.down_RI), self.lora.up_OR)
        return F.linear(x, self.weight, self.bias) + self.scale * update

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return an ordinary layer of the same function."""
        outputs, inputs = self.weight.shape
        linear = nn.Linear(inputs, outputs, bias=self.bias is not None, device="meta")
        linear.weight = nn.Parameter(self.lora.added_to(self.weight, self.scale))
        linear.bias = self.bias
        return linear


class LoRAExperts(InLayerExperts):
    """The in-layer experts of one layer, frozen, each with updates of its own."""

    def __init__(self, experts: InLayerExperts, rank: int, scale: float) -> None:
        number, twice, hidden = experts.gate_up_E2FD.shape
        with torch.device("meta"):
            super().__init__(number, hidden, twice // 2, experts.backend)
        self.function, self.recompute = experts.function, experts.recompute
        self.gate_up_E2FD, self.down_EDF = experts.gate_up_E2FD, experts.down_EDF
        self.gate_up_lora = LowRank(experts.gate_up_E2FD, rank)
        self.down_lora = LowRank(experts.down_EDF, rank)
        self.scale = scale

    def forward(self, x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor) -> Tensor:
        """Return the weighted outputs of each token's in-layer experts."""
        return self.function(
            x_ND,
            experts_NK,
            weights_NK,
            self.gate_up_lora.added_to(self.gate_up_E2FD, self.scale),
            self.down_lora.added_to(self.down_EDF, self.scale),
            backend=self.backend,
            recompute=self.recompute,
        )

    @torch.no_grad()
    def merged(self) -> InLayerExperts:
        """Return ordinary in-layer experts of the same function."""
        number, twice, hidden = self.gate_up_E2FD.shape
        experts = InLayerExperts(number, hidden, twice // 2, self.backend)
        experts.function, experts.recompute = self.function, self.recompute
        experts.gate_up_E2FD = nn.Parameter(self.gate_up_lora.added_to(self.gate_up_E2FD, self.scale))
        experts.down_EDF = nn.Parameter(self.down_lora.added_to(self.down_EDF, self.scale))
        return experts
