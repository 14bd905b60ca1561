"""The router as one autograd function, however its two passes are computed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from moe_trainer.moe.routing import RouterConfig, Routing

#: experts_NK, weights_NK, counts_GE, probabilities_GE, logsumexp_N and the logits' root mean square.
Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
#: The gradients of weights_NK, probabilities_GE and logsumexp_N; None: the loss does not depend on it.
OutputGradients = tuple[Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class RouterCase:
    """One call of a router: all that the choice of its backend may depend on."""

    device: str  #: ``cpu``, ``cuda``, …
    dtype: torch.dtype
    gradients: bool  #: Whether a backward pass will follow.
    config: RouterConfig

    @classmethod
    def of(cls, logits_NE: Tensor, config: RouterConfig) -> "RouterCase":
        """Return the case of a call with some logits."""
        gradients = torch.is_grad_enabled() and logits_NE.requires_grad
        return cls(logits_NE.device.type, logits_NE.dtype, gradients, config)


@dataclass(frozen=True)
class Passes:
    """A way to compute a router: its forward and its backward pass."""

    #: (logits_NE, bias_E, config, groups) -> outputs. A token whose logits contain NaN chooses valid in-layer experts.
    forward: Callable[[Tensor, Tensor | None, RouterConfig, int], Outputs]
    #: (logits_NE, experts_NK, logsumexp_N, gradients, config, groups) -> dlogits_NE
    backward: Callable[[Tensor, Tensor, Tensor, OutputGradients, RouterConfig, int], Tensor]


def route_by(
    passes: Passes, logits_NE: Tensor, config: RouterConfig, bias_E: Tensor | None, groups: int
) -> Routing:
    """Return the routing of N tokens, ``groups`` sequences of the same length; nothing is dropped yet.

    A token whose logits contain NaN chooses any valid in-layer experts, and ``Routing.finite`` is false.
    """
    if torch.is_grad_enabled() and logits_NE.requires_grad:
        found = _Route.apply(logits_NE, bias_E, passes, config, groups)  # type: ignore[no-untyped-call]
    else:
        found = passes.forward(logits_NE, bias_E, config, groups)
    experts_NK, weights_NK, counts_GE, probabilities_GE, logsumexp_N, logit_rms = found
    return Routing(
        experts_NK=experts_NK,
        weights_NK=weights_NK,
        counts_GE=counts_GE,
        probabilities_GE=probabilities_GE,
        logsumexp_N=logsumexp_N,
        dropped=torch.zeros((), dtype=torch.int64, device=logits_NE.device),
        logit_rms=logit_rms,
    )


class _Route(torch.autograd.Function):
    """Keeps the logits, the choice and the log-sum-exp; the backward pass computes the scores again."""

    @staticmethod
    def forward(
        ctx: Any,
        logits_NE: Tensor,
        bias_E: Tensor | None,
        passes: Passes,
        config: RouterConfig,
        groups: int,
    ) -> Outputs:
        found = passes.forward(logits_NE, bias_E, config, groups)
        experts_NK, _, counts_GE, _, logsumexp_N, logit_rms = found
        ctx.save_for_backward(logits_NE, experts_NK.int(), logsumexp_N)
        ctx.mark_non_differentiable(experts_NK, counts_GE, logit_rms)
        ctx.set_materialize_grads(False)
        ctx.passes, ctx.config, ctx.groups = passes, config, groups
        return found

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        _experts: None,
        dweights_NK: Tensor | None,
        _counts: None,
        dprobabilities_GE: Tensor | None,
        dlogsumexp_N: Tensor | None,
        _rms: None,
    ) -> tuple[Tensor, None, None, None, None]:
        gradients = dweights_NK, dprobabilities_GE, dlogsumexp_N
        dlogits_NE = ctx.passes.backward(*ctx.saved_tensors, gradients, ctx.config, ctx.groups)
        return dlogits_NE, None, None, None, None
