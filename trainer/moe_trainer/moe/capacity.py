"""Capacity: how many slots an in-layer expert takes; further ones are dropped. By default nothing is dropped.

    C = ceil(factor * N * K / E)                         (Fedus et al., "Switch Transformers", 2021)

If more slots choose an in-layer expert, those with the smallest weights are dropped, and among equal weights those of
later tokens. A dropped slot adds nothing to its token. The weights of the token's other slots stay as they are, so that
what one slot adds never depends on whether another was dropped.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from moe_trainer.moe.routing import Routing


def capacity(factor: float, tokens: int, active: int, experts: int) -> int:
    """Return C, the most slots that an in-layer expert takes; raises ValueError unless the factor is above 0."""
    if not 0 < factor < math.inf:
        raise ValueError(
            f"capacity_factor is {factor}, but must be above 0: 1 gives every in-layer expert room for its fair "
            "share, None drops nothing"
        )
    return math.ceil(factor * tokens * active / experts)


def drop_beyond_capacity(routing: Routing, factor: float) -> Routing:
    """Return the routing with the slots beyond capacity dropped: they get in-layer expert E and weight 0.

    Counts and probabilities remain those before dropping, since balancing must see the demand.
    """
    tokens, active = routing.experts_NK.shape
    most = capacity(factor, tokens, active, routing.experts)
    full_NK = _rank(routing.experts_NK, routing.weights_NK.detach(), routing.experts) >= most
    return replace(
        routing,
        experts_NK=routing.experts_NK.masked_fill(full_NK, routing.experts),
        weights_NK=routing.weights_NK.masked_fill(full_NK, 0),
        dropped=full_NK.sum(),
    )


def _rank(experts_NK: Tensor, weights_NK: Tensor, experts: int) -> Tensor:
    """Return each slot's rank among the slots of its in-layer expert, the largest weight first."""
    by_weight_S = weights_NK.flatten().argsort(descending=True, stable=True)
    chosen_S = experts_NK.flatten()[by_weight_S]
    order_S = chosen_S.argsort(stable=True)
    counts_E = torch.zeros(experts, dtype=torch.int64, device=chosen_S.device)
    counts_E.scatter_add_(0, chosen_S, torch.ones_like(chosen_S))
    first_E = counts_E.cumsum(0) - counts_E
    place_S = torch.arange(chosen_S.numel(), device=chosen_S.device) - first_E[chosen_S[order_S]]
    rank_S = torch.empty_like(place_S)
    rank_S[by_weight_S[order_S]] = place_S
    return rank_S.view_as(experts_NK)
