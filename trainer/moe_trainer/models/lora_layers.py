"""Low-rank updates of frozen weights: W' = W + s B A, with A of R x I and B of O x R.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021. The rank R is far smaller than the number of
inputs I and outputs O, so A and B are small. B starts at zero, so W' starts as W.

Shapes: E in-layer experts, D hidden, F inner, R rank.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from moe_trainer.models.in_layer import stacked_weights


class LowRank(nn.Module):
    """The update of one matrix, or of a stack of them: A (…, R, I) and B (…, O, R)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        """Make an update of zero for a weight of shape (…, O, I)."""
        super().__init__()
        *stack, outputs, inputs = weight.shape
        self.a_RI = nn.Parameter(weight.new_zeros(*stack, rank, inputs))
        self.b_OR = nn.Parameter(weight.new_zeros(*stack, outputs, rank))

    def added_to(self, weight: Tensor, scale: float) -> Tensor:
        """Return W + s B A."""
        if weight.dim() == 2:
            return torch.addmm(weight, self.b_OR, self.a_RI, alpha=scale)
        return torch.baddbmm(weight, self.b_OR, self.a_RI, alpha=scale)


def is_transposed(module: nn.Module) -> bool:
    """Return whether a module is a linear layer whose weight is (I, O): transformers' Conv1D, of which GPT-2 consists."""
    weight = getattr(module, "weight", None)
    return hasattr(module, "nf") and isinstance(weight, Tensor) and weight.dim() == 2


class LoRALinear(nn.Module):
    """A linear layer with a frozen weight and an update: y = W x + s B (A x).

    The weight keeps the layout that it has in the layer: (O, I), or (I, O) if ``transposed``.
    """

    def __init__(self, linear: nn.Module, rank: int, scale: float) -> None:
        """Take a layer of torch, or one that is transposed."""
        super().__init__()
        self.transposed = is_transposed(linear)
        self.weight: nn.Parameter = linear.get_parameter("weight")
        self.bias: nn.Parameter | None = dict(linear.named_parameters(recurse=False)).get("bias")
        self.lora = LowRank(self._weight_OI, rank)
        self.scale = scale
        self._layer = type(linear)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        update = F.linear(F.linear(x, self.lora.a_RI), self.lora.b_OR)
        return F.linear(x, self._weight_OI, self.bias) + self.scale * update

    @property
    def _weight_OI(self) -> Tensor:
        return self.weight.T if self.transposed else self.weight

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Return an ordinary layer of the kind that this one was made of, which computes the same function."""
        outputs, inputs = self._weight_OI.shape
        merged_OI = self.lora.added_to(self._weight_OI, self.scale)
        linear: nn.Module
        if self.transposed:
            with torch.device("meta"):
                linear = self._layer(outputs, inputs)
            merged = merged_OI.T.contiguous()
        else:
            linear, merged = nn.Linear(inputs, outputs, bias=False, device="meta"), merged_OI
        linear.register_parameter("weight", nn.Parameter(merged))
        linear.register_parameter("bias", self.bias)
        return linear


class LoRAExperts(nn.Module):
    """The frozen in-layer experts of one layer, each with updates of its own.

    They are computed with W + s B A, which is computed again for every pass: computing x A and then B in addition to the
    frozen products takes fewer operations but more time (docs/decisions/0013-lora-on-in-layer-experts.md).
    """

    def __init__(self, experts: nn.Module, rank: int, scale: float, *, keep: bool = False) -> None:
        """Give each stacked weight of a module an update of zero.

        ``keep`` keeps W + s B A, a copy of the in-layer experts, for the backward pass, which otherwise makes it
        again. It is needed in a model that recomputes whole layers, since autograd's hooks on saved tensors do not
        nest.
        """
        super().__init__()
        self.experts = experts
        self.updates = nn.ModuleDict(
            {name: LowRank(weight, rank) for name, weight in stacked_weights(experts).items()}
        )
        self.scale = scale
        self.keep = keep

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Return the in-layer experts' output, computed with the updated weights."""
        weights = {name: self.updated(name) for name in self.updates}
        if self.keep:
            return functional_call(self.experts, weights, arguments, options)
        names = {(weight.data_ptr(), weight.shape): name for name, weight in weights.items()}

        def pack(tensor: Tensor) -> Tensor | str:
            return names.get((tensor.data_ptr(), tensor.shape), tensor)

        def unpack(packed: Tensor | str) -> Tensor:
            with torch.no_grad():
                return self.updated(packed) if isinstance(packed, str) else packed

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return functional_call(self.experts, weights, arguments, options)

    def updated(self, name: str) -> Tensor:
        """Return a stacked weight with its update."""
        return self.update(name).added_to(self.experts.get_parameter(name), self.scale)

    def update(self, name: str) -> LowRank:
        """Return the update of a stacked weight."""
        update = self.updates[name]
        assert isinstance(update, LowRank)
        return update

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Return the in-layer experts with the updates added to their weights."""
        for name in self.updates:
            setattr(self.experts, name, nn.Parameter(self.updated(name)))
        return self.experts


def draw(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return an A drawn uniformly from ±1/sqrt(I), as in PEFT; it is the same on every device."""
    bound = 1 / math.sqrt(shape[-1])
    return torch.empty(shape, device="cpu").uniform_(-bound, bound, generator=generator)
