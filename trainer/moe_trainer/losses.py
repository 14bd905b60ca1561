"""What training minimises besides the cross-entropy, and how evenly the routers spread their load.

Shapes: N tokens, E in-layer experts, K active per token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from moe_trainer.moe_layer import Routing


def load_balancing_loss(routing: Routing) -> Tensor:
    """Return E * sum_i f_i p_i of one layer: 1 when balanced, E when one in-layer expert takes all.

    f_i is the share of slots sent to expert i, p_i its mean probability (Fedus et al., "Switch
    Transformers", 2021, equation 4; for K > 1 the slots are counted, as in Mixtral and Qwen3-MoE).
    """
    share_E = load(routing)
    return share_E.numel() * (share_E * routing.probabilities_NE.mean(dim=0)).sum()


def router_z_loss(routing: Routing) -> Tensor:
    """Return the mean squared log-sum-exp of the router's logits (Zoph et al., "ST-MoE", 2022, equation 5)."""
    return routing.logits_NE.float().logsumexp(dim=-1).square().mean()


def load(routing: Routing) -> Tensor:
    """Return each in-layer expert's share of the slots: E numbers that sum to 1, without gradient."""
    experts = routing.probabilities_NE.shape[1]
    slots = routing.experts_NK.flatten()
    return torch.bincount(slots, minlength=experts).to(routing.probabilities_NE.dtype) / slots.numel()


def load_max_violation(routings: Sequence[Routing]) -> float:
    """Return MaxVio, largest over layers: how far the busiest in-layer expert is above its fair share.

    0 is perfect balance; 1 means that one carries twice its share (Wang et al., "Auxiliary-Loss-Free
    Load Balancing", 2024).
    """
    return max(float(load(r).max() * r.probabilities_NE.shape[1]) - 1 for r in routings)
