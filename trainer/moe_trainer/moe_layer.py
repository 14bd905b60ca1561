"""The mixture-of-experts layer: a learned router picks K of E in-layer experts for each token, dropless.

    router    p = softmax(x W_r), the K largest, renormalised to sum 1 (norm_topk_prob)
    experts   SwiGLU banks: down(silu(gate(x)) * up(x))
    output    sum over the K experts of p_k * expert_k(x)

How the experts' products are computed is a *backend*: ``reference`` loops over the experts as the
formula reads, and every other backend is tested against it.

Shapes: N tokens, D hidden, E in-layer experts, K active per token, F inner width, S = N * K slots.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe_trainer.model_config import ModelConfig

Backend = Literal["reference", "torch"]

#: (x_ND, experts_NK, weights_NK, gate_up_E2FD, down_EDF) -> y_ND
ExpertsFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Routing:
    """What one router did with a batch; the losses and the load metrics are made of it."""

    logits_NE: Tensor
    probabilities_NE: Tensor
    experts_NK: Tensor


class MoELayer(nn.Module):
    """Router and in-layer experts of one block."""

    def __init__(self, config: ModelConfig, backend: Backend = "torch") -> None:
        super().__init__()
        experts, hidden, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.active = config.num_experts_per_tok
        self.renormalise = config.norm_topk_prob
        self.backend: Backend = backend
        self.gate = nn.Linear(hidden, experts, bias=False)
        self.gate_up_E2FD = nn.Parameter(torch.empty(experts, 2 * inner, hidden))
        self.down_EDF = nn.Parameter(torch.empty(experts, hidden, inner))

    def forward(self, x_ND: Tensor) -> tuple[Tensor, Routing]:
        """Return the layer's output, and the routing that led to it."""
        logits_NE = self.gate(x_ND)
        probabilities_NE = logits_NE.float().softmax(dim=-1)
        weights_NK, experts_NK = probabilities_NE.topk(self.active, dim=-1)
        if self.renormalise:
            weights_NK = weights_NK / weights_NK.sum(dim=-1, keepdim=True)
        apply = BACKENDS[self.backend]
        y_ND = apply(x_ND, experts_NK, weights_NK.to(x_ND.dtype), self.gate_up_E2FD, self.down_EDF)
        return y_ND, Routing(logits_NE, probabilities_NE, experts_NK)


def reference_experts(
    x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor, gate_up_E2FD: Tensor, down_EDF: Tensor
) -> Tensor:
    """Loop over the in-layer experts: the formula, for tests and for reading."""
    y_ND = torch.zeros_like(x_ND)
    for expert in range(gate_up_E2FD.shape[0]):
        token, slot = torch.where(experts_NK == expert)
        gate_SF, up_SF = (x_ND[token] @ gate_up_E2FD[expert].T).chunk(2, dim=-1)
        out_SD = (F.silu(gate_SF) * up_SF) @ down_EDF[expert].T
        y_ND = y_ND.index_add(0, token, weights_NK[token, slot, None] * out_SD)
    return y_ND


def sorted_experts(
    x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor, gate_up_E2FD: Tensor, down_EDF: Tensor
) -> Tensor:
    """Sort the slots by expert, so that each expert multiplies one contiguous slice, and add them up.

    The slots' weights are applied before the last product, where rows are F and not D wide.
    """
    order_S = experts_NK.flatten().argsort(stable=True)
    token_S = order_S // experts_NK.shape[1]
    counts = torch.bincount(experts_NK.flatten(), minlength=gate_up_E2FD.shape[0]).tolist()
    parts = torch.split(x_ND.index_select(0, token_S), counts)
    weights = torch.split(weights_NK.flatten()[order_S, None], counts)
    out_SD = torch.cat(
        [
            _swiglu(part_SD, gate_up_2FD, down_DF, weight_S1)
            for part_SD, weight_S1, gate_up_2FD, down_DF in zip(
                parts, weights, gate_up_E2FD.unbind(), down_EDF.unbind(), strict=True
            )
        ]
    )
    return torch.zeros_like(x_ND).index_add(0, token_S, out_SD)


def _swiglu(x_SD: Tensor, gate_up_2FD: Tensor, down_DF: Tensor, weight_S1: Tensor) -> Tensor:
    gate_SF, up_SF = F.linear(x_SD, gate_up_2FD).chunk(2, dim=-1)
    return F.linear(F.silu(gate_SF) * up_SF * weight_S1, down_DF)


BACKENDS: dict[Backend, ExpertsFunction] = {"reference": reference_experts, "torch": sorted_experts}
