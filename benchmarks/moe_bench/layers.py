"""The layers that are compared: router, in-layer experts and combination, on the same weights.

Every layer computes: softmax over E, the K largest renormalised, SwiGLU. What cannot be had here raises
Absent, or whatever its own import or constructor raises: the result then says so under its name.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe_bench.cases import Shape, Weights
from moe_trainer.moe.backends import ENTRIES, Backend
from moe_trainer.moe.layer import LayerConfig, MoELayer
from moe_trainer.moe.routing import RouterConfig

#: Name of our layer with a backend.
OURS = "ours, {}"
TRANSFORMERS = "transformers, {}"


#: What copies of weights may take, by kind of device.
ROOM_GIB = {"cpu": 4, "cuda": 40}


class Absent(Exception):
    """A layer cannot be had here; says why and what to do."""


class Layer(nn.Module):
    """One layer under comparison."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.router_ED = weights.router_ED
        self.gate_up = weights.gate_up_E2FD  #: In the layer's own layout.
        self.down_EDF = weights.down_EDF

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return y_ND."""
        raise NotImplementedError

    def leaves(self) -> list[nn.Parameter]:
        """Return the weights that get a gradient: router, gate and up, down."""
        return [self.router_ED, self.gate_up, self.down_EDF]

    def gate_up_gradient(self, gradient: Tensor) -> Tensor:
        """Return the gradient of gate and up in Hugging Face's layout."""
        return gradient


class Ours(Layer):
    """The layer of moe_trainer with one of its backends, by default the one it chooses."""

    def __init__(
        self, weights: Weights, shape: Shape, backend: Backend | None, recompute: bool = False
    ) -> None:
        super().__init__(weights)
        config = LayerConfig(shape.hidden, shape.inner, RouterConfig(shape.experts, shape.active))
        with torch.device("meta"):
            self.layer = MoELayer(config, backend)
        self.layer.gate.weight = weights.router_ED
        self.layer.experts.recompute = recompute
        self.layer.experts.gate_up_E2FD = weights.gate_up_E2FD
        self.layer.experts.down_EDF = weights.down_EDF

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return y_ND."""
        return self.layer(x_ND)[0]


class GroupedProducts(Layer):
    """The plain way with torch's grouped product, as training libraries write it.

    Sort, gather, three grouped products with unfused SiLU and product, scale, scatter-add.
    """

    def __init__(self, weights: Weights, shape: Shape) -> None:
        super().__init__(weights)
        self.active, self.experts, self.inner = shape.active, shape.experts, shape.inner
        self.product = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
        if self.product is None:
            raise Absent("this torch has no grouped product: 2.9 or newer has")

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return y_ND."""
        weights_NK, experts_NK = _route(x_ND, self.router_ED, self.active)
        slots_S = experts_NK.flatten().argsort(stable=True)
        counts_E = torch.zeros(self.experts, dtype=torch.int32, device=x_ND.device)
        counts_E.scatter_add_(0, experts_NK.flatten(), torch.ones_like(slots_S, dtype=torch.int32))
        ends_E = counts_E.cumsum(0, dtype=torch.int32)
        tokens_S = slots_S // self.active
        x_SD = x_ND[tokens_S]
        gate_EDF = self.gate_up[:, : self.inner].transpose(1, 2)
        up_EDF = self.gate_up[:, self.inner :].transpose(1, 2)
        a_SF = F.silu(self.product(x_SD, gate_EDF, offs=ends_E)) * self.product(x_SD, up_EDF, offs=ends_E)
        y_SD = self.product(a_SF, self.down_EDF.transpose(1, 2), offs=ends_E)
        y_SD = y_SD * weights_NK.flatten()[slots_S, None].to(y_SD.dtype)
        return torch.zeros_like(x_ND).scatter_add(0, tokens_S[:, None].expand_as(y_SD), y_SD)


class Transformers(Layer):
    """The sparse block of Qwen3-MoE in transformers, with one of its implementations of the experts."""

    def __init__(self, weights: Weights, shape: Shape, implementation: str) -> None:
        super().__init__(weights)
        from transformers import Qwen3MoeConfig
        from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

        if implementation == "batched_mm":
            self._check_room(shape, weights)
        config = Qwen3MoeConfig(
            hidden_size=shape.hidden,
            moe_intermediate_size=shape.inner,
            num_experts=shape.experts,
            num_experts_per_tok=shape.active,
            norm_topk_prob=True,
            experts_implementation=implementation,
        )
        with torch.device("meta"):
            self.block = Qwen3MoeSparseMoeBlock(config)
        self.block.gate.weight = weights.router_ED
        self.block.experts.gate_up_proj = weights.gate_up_E2FD
        self.block.experts.down_proj = weights.down_EDF

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return y_ND."""
        return self.block(x_ND[None])[0]

    @staticmethod
    def _check_room(shape: Shape, weights: Weights) -> None:
        """It copies the weights of every slot, and makes a gradient of each copy."""
        needed = 2 * shape.slots * 3 * shape.inner * shape.hidden * weights.down_EDF.element_size()
        limit = ROOM_GIB[weights.down_EDF.device.type] << 30
        if needed > limit:
            raise Absent(
                f"would copy {needed / 2**30:.0f} GiB of weights for this batch; {limit >> 30} is the limit here"
            )


class ScatterMoE(Layer):
    """ScatterMoE's gated layer behind a plain router: it has none of its own."""

    def __init__(self, weights: Weights, shape: Shape) -> None:
        super().__init__(weights)
        from scattermoe.mlp import GLUMLP

        self.active = shape.active
        gate_EFD, up_EFD = weights.gate_up_E2FD.detach().chunk(2, dim=1)
        self.gate_up = nn.Parameter(torch.cat((up_EFD, gate_EFD), dim=1))  # it wants up above gate
        with torch.device("meta"):
            self.layer = GLUMLP(shape.hidden, shape.inner, shape.experts, shape.active, activation=nn.SiLU())
        self.layer.experts.weight = self.gate_up
        self.layer.output_experts.weight = weights.down_EDF

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return y_ND."""
        weights_NK, experts_NK = _route(x_ND, self.router_ED, self.active)
        return self.layer(x_ND, weights_NK.to(x_ND.dtype), experts_NK)

    def gate_up_gradient(self, gradient: Tensor) -> Tensor:
        """Return gate above up again."""
        up_EFD, gate_EFD = gradient.chunk(2, dim=1)
        return torch.cat((gate_EFD, up_EFD), dim=1)


class SonicMoE(Layer):
    """SonicMoE's whole layer, its router included (it takes the softmax over the K chosen: the same weights)."""

    def __init__(self, weights: Weights, shape: Shape) -> None:
        super().__init__(weights)
        from sonicmoe import moe_TC_softmax_topk_layer
        from sonicmoe.enums import ActivationType

        self.active, self.activation, self.layer = (
            shape.active,
            ActivationType.SWIGLU,
            moe_TC_softmax_topk_layer,
        )
        gate_EFD, up_EFD = weights.gate_up_E2FD.detach().chunk(2, dim=1)
        self.gate_up = nn.Parameter(torch.stack((gate_EFD, up_EFD), dim=2).flatten(1, 2))  # rows take turns

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return y_ND."""
        return self.layer(
            x_ND,
            self.router_ED,
            self.gate_up.permute(1, 2, 0),
            None,
            self.down_EDF.permute(1, 2, 0),
            None,
            self.active,
            torch.cuda.current_stream().cuda_stream,
            self.activation,
            not torch.is_grad_enabled(),
        )[0]

    def gate_up_gradient(self, gradient: Tensor) -> Tensor:
        """Return gate above up again."""
        return torch.cat((gradient[:, ::2], gradient[:, 1::2]), dim=1)


def _route(x_ND: Tensor, router_ED: Tensor, active: int) -> tuple[Tensor, Tensor]:
    """Return the plain router's weights_NK, in fp32, and experts_NK."""
    scores_NE = F.linear(x_ND, router_ED).softmax(dim=-1, dtype=torch.float32)
    weights_NK, experts_NK = scores_NE.topk(active, dim=-1)
    return weights_NK / weights_NK.sum(dim=-1, keepdim=True), experts_NK


def _ours(backend: Backend) -> Callable[[Weights, Shape], Layer]:
    return lambda weights, shape: Ours(weights, shape, backend)


def _transformers(implementation: str) -> Callable[[Weights, Shape], Layer]:
    return lambda weights, shape: Transformers(weights, shape, implementation)


#: Every layer under comparison, by name.
LAYERS: dict[str, Callable[[Weights, Shape], Layer]] = {
    **{OURS.format(name): _ours(name) for name in ENTRIES},
    OURS.format("recompute"): lambda weights, shape: Ours(weights, shape, None, recompute=True),
    "torch grouped products": GroupedProducts,
    **{TRANSFORMERS.format(name): _transformers(name) for name in ("eager", "grouped_mm", "batched_mm")},
    "ScatterMoE": ScatterMoE,
    "SonicMoE": SonicMoE,
}
