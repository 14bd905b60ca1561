"""The mixture-of-experts layer as a module: router and in-layer experts of one block."""

import torch
from torch import Tensor, nn

from moe_trainer.model_config import ModelConfig
from moe_trainer.moe.backends import Backend
from moe_trainer.moe.experts import swiglu_experts
from moe_trainer.moe.router import RouterConfig, route
from moe_trainer.moe.routing import Routing


class InLayerExperts(nn.Module):
    """The SwiGLU banks of one layer, stacked. A module of their own: they are spread over processes apart."""

    def __init__(self, experts: int, hidden: int, inner: int, backend: Backend | None = None) -> None:
        super().__init__()
        self.backend = backend
        self.gate_up_E2FD = nn.Parameter(torch.empty(experts, 2 * inner, hidden))
        self.down_EDF = nn.Parameter(torch.empty(experts, hidden, inner))

    def forward(self, x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor) -> Tensor:
        """Return the weighted outputs of each token's in-layer experts."""
        return swiglu_experts(
            x_ND, experts_NK, weights_NK, self.gate_up_E2FD, self.down_EDF, backend=self.backend
        )


class MoELayer(nn.Module):
    """Router and in-layer experts of one block."""

    def __init__(self, config: ModelConfig, backend: Backend | None = None) -> None:
        super().__init__()
        experts, hidden, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.router = RouterConfig(experts, config.num_experts_per_tok, config.norm_topk_prob)
        self.experts = InLayerExperts(experts, hidden, inner, backend)
        self.gate = nn.Linear(hidden, experts, bias=False)

    def forward(self, x_ND: Tensor, groups: int = 1) -> tuple[Tensor, Routing]:
        """Return the layer's output, and the routing that led to it; the tokens are ``groups`` sequences."""
        routing = route(self.gate(x_ND), self.router, groups)
        y_ND: Tensor = self.experts(x_ND, routing.experts_NK, routing.weights_NK)
        return y_ND, routing
