"""The router: which in-layer experts a token uses, and with what weight.

    softmax    scores s = softmax(logits)
    sigmoid    scores s = sigmoid(logits)                        (DeepSeek-AI, "DeepSeek-V3", 2024)
    choice     the K largest of s + bias, within the best expert groups; a group is as good as its best
               score (softmax; DeepSeek-V2) or as the sum of its two best (sigmoid; DeepSeek-V3)
    weights    s of the chosen, without the bias; renormalised to sum 1 and scaled where the config says so

What the bias is for, and how it moves: balance.py. What a capacity drops: capacity.py.

Besides the package's shapes: P groups of in-layer experts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from moe_trainer.moe.routing import Routing

Scores = Literal["softmax", "sigmoid"]

#: Added to a sum of sigmoids before dividing by it, as in DeepSeek-V3 and its descendants.
EPSILON = 1e-20

#: The score of an in-layer expert whose group was not chosen: below any other, but a number.
_CLOSED = -1e38

_EXPERT_BITS = (1 << 29) - 1


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
    if logits_NE.device.type == "cpu" and not torch.linalg.vector_norm(logits_NE.detach()).isfinite():
        raise LogitsNotFinite(layer)
    if fused is None:
        fused = logits_NE.is_cuda and logits_NE.dtype != torch.float64 and find_spec("triton") is not None
    if fused:
        from moe_trainer.moe.triton import router as fused_router  # Triton is not everywhere

        routing: Routing = fused_router.route(logits_NE, config, bias_E, groups)
        return routing
    return _route(logits_NE, config, bias_E, groups)


def check_finite(routings: Sequence[Routing]) -> None:
    """Raise LogitsNotFinite for the first layer whose logits were not; waits for the device."""
    for layer, finite in enumerate(torch.stack([routing.finite for routing in routings]).tolist()):
        if not finite:
            raise LogitsNotFinite(layer)


def _route(logits_NE: Tensor, config: RouterConfig, bias_E: Tensor | None, groups: int) -> Routing:
    """Route in plain torch: what a fused kernel must compute, gradients included."""
    logits_NE = logits_NE if logits_NE.dtype == torch.float64 else logits_NE.float()
    logsumexp_N = logits_NE.logsumexp(dim=-1)
    if config.scores == "softmax":
        scores_NE = probabilities_NE = (logits_NE - logsumexp_N[:, None]).exp()
    else:
        scores_NE = logits_NE.sigmoid()
        probabilities_NE = scores_NE / (scores_NE.sum(dim=-1, keepdim=True) + EPSILON)
    experts_NK = _choose(scores_NE.detach(), config, bias_E)
    weights_NK = scores_NE.gather(1, experts_NK)
    if config.renormalise:
        weights_NK = weights_NK / (weights_NK.sum(dim=-1, keepdim=True) + EPSILON)
    if config.scale != 1:
        weights_NK = weights_NK * config.scale
    length = logits_NE.shape[0] // groups
    return Routing(
        experts_NK=experts_NK,
        weights_NK=weights_NK,
        counts_GE=_counts(experts_NK, config.experts, groups),
        probabilities_GE=probabilities_NE.view(groups, length, config.experts).sum(dim=1) / max(1, length),
        logsumexp_N=logsumexp_N,
        dropped=torch.zeros((), dtype=torch.int64, device=logits_NE.device),
        logit_rms=torch.linalg.vector_norm(logits_NE.detach()) / max(1, logits_NE.numel()) ** 0.5,
    )


def _choose(scores_NE: Tensor, config: RouterConfig, bias_E: Tensor | None) -> Tensor:
    """Return the K in-layer experts with the largest biased scores, best first."""
    if bias_E is not None:
        scores_NE = scores_NE + bias_E
    if config.chosen_groups < config.expert_groups:
        scores_NPe = scores_NE.view(-1, config.expert_groups, config.experts // config.expert_groups)
        best = 1 if config.scores == "softmax" else min(2, scores_NPe.shape[2])
        scores_NP = scores_NPe.topk(best, dim=-1).values.sum(dim=-1)
        chosen_NP = scores_NP.topk(config.chosen_groups, dim=-1).indices
        closed_NP = torch.ones_like(scores_NP, dtype=torch.bool).scatter_(1, chosen_NP, False)
        scores_NE = scores_NPe.masked_fill(closed_NP[:, :, None], _CLOSED).flatten(1)
    if scores_NE.device.type == "cpu" and scores_NE.dtype == torch.float32:
        return _largest(scores_NE, config.active)
    return scores_NE.topk(config.active, dim=-1).indices


def _largest(scores_NE: Tensor, active: int) -> Tensor:
    """Return what topk(active).indices returns: on a CPU in a third of its time, for a few active of tens.

    A single-precision number leaves 29 of a double's 52 bits of mantissa free. They hold the in-layer
    expert, so that one maximum over all tokens, which is vectorised, finds both the score and its place.
    """
    experts = scores_NE.shape[1]
    key_EN = scores_NE.T.to(torch.float64, memory_format=torch.contiguous_format)
    key_EN.view(torch.int64).add_(torch.arange(experts - 1, -1, -1)[:, None])  # of equals, the first
    largest_NK = torch.empty(scores_NE.shape[0], active, dtype=torch.int64)
    for choice in range(active):
        largest_N = experts - 1 - (key_EN.amax(dim=0).view(torch.int64) & _EXPERT_BITS)
        largest_NK[:, choice] = largest_N
        key_EN.scatter_(0, largest_N[None], -math.inf)
    return largest_NK


def _counts(experts_NK: Tensor, experts: int, groups: int) -> Tensor:
    """Count the slots of each group's in-layer experts; unlike bincount, this waits for no device."""
    chosen_GS = experts_NK.reshape(groups, -1)
    counts_GE = torch.zeros(groups, experts, dtype=torch.int64, device=experts_NK.device)
    return counts_GE.scatter_add_(1, chosen_GS, torch.ones_like(chosen_GS))


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
