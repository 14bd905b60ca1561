"""The router: which in-layer experts a token uses, and with what weight.

    softmax    scores s = softmax(logits)
    sigmoid    scores s = sigmoid(logits)                        (DeepSeek-AI, "DeepSeek-V3", 2024)
    choice     the K largest of s + bias, within the best expert groups; a group is as good as its best
               score (softmax; DeepSeek-V2) or as the sum of its two best (sigmoid; DeepSeek-V3)
    weights    s of the chosen, without the bias; renormalised to sum 1 and scaled where the config says so

How: plain_router.py, or fused in triton/router.py. What the bias is for, and how it moves: balance.py. What a
capacity drops: capacity.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from moe_trainer.moe import plain_router
from moe_trainer.moe.routing import Routing

Scores = Literal["softmax", "sigmoid"]


class LogitsNotFinite(ValueError):
    """A router's logits hold NaN or infinity; ``layer`` is its number, where known."""

    def __init__(self, layer: int | None = None) -> None:
        self.layer = layer
        place = "" if layer is None else f" of layer {layer}"
        super().__init__(
            f"the router's logits{place} hold NaN or infinity: the weights or the input before it are no "
            "longer finite. Lower the learning rate, clip gradients, or go back to an earlier checkpoint."
        )


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


def route(
    logits_NE: Tensor,
    config: RouterConfig,
    bias_E: Tensor | None = None,
    groups: int = 1,
    *,
    layer: int | None = None,
    fused: bool | None = None,
) -> Routing:
    """Return the choice of N tokens, which are ``groups`` sequences of the same length, one after the other.

    Computed in fp32, or fp64 if the logits are. ``bias_E`` takes part in the choice alone. ``fused`` forces
    the Triton kernel (moe/triton/router.py) or forbids it; by default it is used on CUDA, for all but fp64.

    Raises ValueError if sizes do not fit, and on the CPU LogitsNotFinite, naming ``layer``. On a device
    that would mean to wait for it: there ``Routing.finite`` tells, and the choice is some valid one.
    """
    _check(logits_NE, config, bias_E, groups)
    if fused is None:
        fused = logits_NE.is_cuda and logits_NE.dtype != torch.float64 and find_spec("triton") is not None
    if fused:
        from moe_trainer.moe.triton import router as fused_router  # Triton is not everywhere

        return fused_router.route(logits_NE, config, bias_E, groups)
    routing = plain_router.route(logits_NE, config, bias_E, groups)
    if logits_NE.device.type == "cpu" and not math.isfinite(routing.logit_rms):
        raise LogitsNotFinite(layer)
    return routing


def check_finite(routings: Sequence[Routing]) -> None:
    """Raise LogitsNotFinite for the first layer whose logits were not; waits for the device."""
    for layer, finite in enumerate(torch.stack([routing.finite for routing in routings]).tolist()):
        if not finite:
            raise LogitsNotFinite(layer)


def _check(logits_NE: Tensor, config: RouterConfig, bias_E: Tensor | None, groups: int) -> None:
    if logits_NE.dim() != 2 or logits_NE.shape[1] != config.experts:
        raise ValueError(
            f"logits have shape {list(logits_NE.shape)}, but the router has {config.experts} in-layer experts: "
            f"pass N x {config.experts}"
        )
    if groups < 1 or logits_NE.shape[0] % groups:
        raise ValueError(
            f"{logits_NE.shape[0]} tokens are not {groups} sequences of one length: groups must divide them"
        )
    if bias_E is not None and bias_E.shape != (config.experts,):
        raise ValueError(f"bias has shape {list(bias_E.shape)}, but must have {config.experts} numbers")
