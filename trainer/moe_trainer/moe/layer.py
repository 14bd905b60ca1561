"""The mixture-of-experts layer as a module: the router, in-layer experts and shared experts of one block."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe_trainer.moe.backends import Backend
from moe_trainer.moe.capacity import drop_beyond_capacity
from moe_trainer.moe.experts import ExpertsFunction, swiglu_experts
from moe_trainer.moe.router import route
from moe_trainer.moe.routing import RouterConfig, Routing


@dataclass(frozen=True)
class LayerConfig:
    """The sizes of one mixture-of-experts layer, and how its router chooses."""

    hidden: int  #: Width of what goes in and comes out, D.
    inner: int  #: Inner width of one in-layer expert, F.
    router: RouterConfig
    shared: int = 0  #: Experts that every token passes besides those it chooses, each of width F.
    bias: bool = False  #: The router has a selection bias.


class SharedExperts(nn.Module):
    """The shared experts, which every token passes besides those it chooses: one SwiGLU as wide as all of them."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return down(silu(gate(x)) * up(x))."""
        y_ND: Tensor = self.down_proj(F.silu(self.gate_proj(x_ND)) * self.up_proj(x_ND))
        return y_ND


class InLayerExperts(nn.Module):
    """The stacked in-layer experts of one layer; a module of their own, since they are cut over processes separately."""

    def __init__(self, experts: int, hidden: int, inner: int, backend: Backend | None = None) -> None:
        super().__init__()
        self.backend = backend
        self.function: ExpertsFunction = swiglu_experts  #: Replaced where they are cut over processes.
        self.recompute = False  #: Keep no pre-activation for the backward pass, but compute it again then.
        self.gate_up_E2FD = nn.Parameter(torch.empty(experts, 2 * inner, hidden))
        self.down_EDF = nn.Parameter(torch.empty(experts, hidden, inner))

    def forward(self, x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor) -> Tensor:
        """Return the weighted outputs of each token's in-layer experts."""
        return self.function(
            x_ND,
            experts_NK,
            weights_NK,
            self.gate_up_E2FD,
            self.down_EDF,
            backend=self.backend,
            recompute=self.recompute,
        )


class MoELayer(nn.Module):
    """Router, in-layer experts and shared experts of one block.

    ``bias_E`` is the router's selection bias, a buffer that the trainer moves (balance.py), or None. With
    ``capacity_factor`` the slots per in-layer expert are limited (capacity.py), but only in training mode, since
    what a model answers must not depend on what else is in the batch; None drops nothing.
    """

    def __init__(self, config: LayerConfig, backend: Backend | None = None, layer: int | None = None) -> None:
        """Make layer number ``layer`` of a model; errors name the number."""
        super().__init__()
        hidden, inner, experts = config.hidden, config.inner, config.router.experts
        self.layer = layer
        self.backend = backend
        self.router = config.router
        self.capacity_factor: float | None = None
        self.experts = InLayerExperts(experts, hidden, inner, backend)
        self.gate = nn.Linear(hidden, experts, bias=False)
        self.beside: nn.Module | None = None  #: Computes the final logits from x_ND and logits_NE.
        shared = config.shared * inner
        self.shared_experts = SharedExperts(hidden, shared) if shared else None
        bias = torch.zeros(experts) if config.bias else None
        self.register_buffer("bias_E", bias)
        self.bias_E: Tensor | None

    @property
    def rows_ED(self) -> nn.Parameter:
        """The router's weight, one row per in-layer expert."""
        rows_ED = self.gate.weight
        assert isinstance(rows_ED, nn.Parameter)
        return rows_ED

    @property
    def whole_bias_E(self) -> Tensor | None:
        """The bias of all in-layer experts that the router chooses among; it is 0 for those added by a bank."""
        if self.bias_E is None or len(self.bias_E) == self.router.experts:
            return self.bias_E
        return F.pad(self.bias_E, (0, self.router.experts - len(self.bias_E)))

    def forward(self, x_ND: Tensor, groups: int = 1) -> tuple[Tensor, Routing]:
        """Return the layer's output and its routing; the tokens are ``groups`` sequences of the same length."""
        routing = route(
            self._logits(x_ND),
            self.router,
            self.whole_bias_E,
            groups,
            layer=self.layer,
            backend=self.backend,
        )
        if self.capacity_factor is not None and self.training:
            routing = drop_beyond_capacity(routing, self.capacity_factor)
        y_ND: Tensor = self.experts(x_ND, routing.experts_NK, routing.weights_NK)
        if self.shared_experts is not None:
            y_ND = y_ND + self.shared_experts(x_ND)
        return y_ND, routing

    def _logits(self, x_ND: Tensor) -> Tensor:
        """Return logits_NE in the same way as the architecture's reference implementation.

        Architectures with sigmoid scores (DeepSeek-V3 and its descendants) multiply in fp32 or wider; Qwen3-MoE
        multiplies in the weights' type, and only its softmax is in fp32.
        """
        wide = torch.promote_types(x_ND.dtype, torch.float32)
        if self.router.scores == "sigmoid" and wide != x_ND.dtype:
            x_ND = x_ND.to(wide)
            logits_NE = F.linear(x_ND, self.gate.weight.to(wide))
        else:
            logits_NE = self.gate(x_ND)
        return logits_NE if self.beside is None else self.beside(x_ND, logits_NE)
