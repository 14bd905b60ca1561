"""What training minimises besides the cross-entropy, and how evenly the routers spread their load.

Shapes: E in-layer experts, G groups of tokens (sequences).
"""

from collections.abc import Sequence

from torch import Tensor

from moe_trainer.moe.routing import Routing


def load_balancing_loss(routing: Routing) -> Tensor:
    """Return E * sum_i f_i p_i of one layer: 1 when balanced, E when one in-layer expert takes all.

    f_i is the share of slots sent to expert i, p_i its mean probability (Fedus et al., "Switch
    Transformers", 2021, equation 4; for K > 1 the slots are counted, as in Mixtral and Qwen3-MoE).
    """
    return routing.experts * (load(routing) * routing.probabilities_GE.mean(dim=0)).sum()


def router_z_loss(routing: Routing) -> Tensor:
    """Return the mean squared log-sum-exp of the router's logits (Zoph et al., "ST-MoE", 2022, equation 5)."""
    return routing.logsumexp_N.square().mean()


def load(routing: Routing) -> Tensor:
    """Return each in-layer expert's share of the slots: E numbers that sum to 1, without gradient."""
    counts_E = routing.counts_GE.sum(dim=0)
    return counts_E.to(routing.probabilities_GE.dtype) / counts_E.sum()


def load_max_violation(routings: Sequence[Routing]) -> float:
    """Return MaxVio, largest over layers: how far the busiest in-layer expert is above its fair share.

    0 is perfect balance; 1 means that one carries twice its share (Wang et al., "Auxiliary-Loss-Free
    Load Balancing", 2024).
    """
    return max(float(load(routing).max() * routing.experts) - 1 for routing in routings)
