"""The router: which in-layer experts a token uses, and with what weight.

softmax    p = softmax(logits), the K largest, renormalised to sum 1 where the config says so
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from moe_trainer.moe.routing import Routing


@dataclass(frozen=True)
class RouterConfig:
    """How a layer's router chooses."""

    experts: int
    active: int
    renormalise: bool = True


def route(logits_NE: Tensor, config: RouterConfig, groups: int = 1) -> Routing:
    """Return the choice of N tokens, which are ``groups`` sequences of the same length, one after the other."""
    logits_NE = logits_NE if logits_NE.dtype == torch.float64 else logits_NE.float()
    logsumexp_N = logits_NE.logsumexp(dim=-1)
    probabilities_NE = (logits_NE - logsumexp_N[:, None]).exp()
    weights_NK, experts_NK = probabilities_NE.topk(config.active, dim=-1)
    if config.renormalise:
        weights_NK = weights_NK / weights_NK.sum(dim=-1, keepdim=True)
    counts_GE = torch.stack(
        [torch.bincount(part.flatten(), minlength=config.experts) for part in experts_NK.chunk(groups)]
    )
    probabilities_GE = probabilities_NE.view(groups, -1, config.experts).mean(dim=1)
    return Routing(experts_NK, weights_NK, counts_GE, probabilities_GE, logsumexp_N)
