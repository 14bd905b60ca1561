"""The losses that balance routers.

Shapes: N tokens, E in-layer experts, G groups of tokens (sequences).
"""

from typing import Literal

from torch import Tensor

from moe_trainer.moe.routing import Routing

BalanceScope = Literal["MicroBatch", "Sequence", "GlobalBatch"]

#: The share of the uniform load in the load that a layer is balanced against, so that no in-layer expert's target is 0.
UNIFORM_SHARE = 0.1


def load_balancing_loss(
    routing: Routing,
    scope: BalanceScope = "MicroBatch",
    *,
    step_counts_E: Tensor | None = None,
    target_E: Tensor | None = None,
) -> Tensor:
    """Return sum_i f_i p_i / q_i of one layer: 1 when balanced, 1 / q_i when in-layer expert i takes all.

    f_i is the share of slots that chose expert i, p_i its mean probability, and q_i its share in the target
    (``target_load``). Without a target q is uniform, and the loss is E * sum_i f_i p_i (Fedus et al.,
    "Switch Transformers", 2021, equation 4; for K > 1 the slots are counted, as in Mixtral and Qwen3-MoE).
    Only p carries gradient. The scopes differ in f and p:

        MicroBatch     both over all tokens here
        Sequence       both over each sequence; the mean of the sequences' losses (DeepSeek-V3, equation 17)
        GlobalBatch    f from ``step_counts_E``, over the step so far and all processes (moe/balance.py);
                       p over all tokens here (Qiu et al., "Demons in the Detail", arXiv 2501.11873)

    Raises ValueError if the scope is GlobalBatch and the step's counts are missing.
    """
    if scope == "Sequence":
        counts_GE, probabilities_GE = routing.counts_GE, routing.probabilities_GE
    else:
        counts_GE = routing.counts_GE.sum(dim=0, keepdim=True)
        probabilities_GE = routing.probabilities_GE.mean(dim=0, keepdim=True)
    if scope == "GlobalBatch":
        if step_counts_E is None:
            raise ValueError("the scope GlobalBatch needs step_counts_E: pass what StepCounts.add returns")
        counts_GE = step_counts_E[None]
    weighted_GE = shares(counts_GE.to(probabilities_GE.dtype)) * probabilities_GE
    if target_E is None:
        return weighted_GE.sum(dim=1).mean() * routing.experts
    return (weighted_GE / target_E).sum(dim=1).mean()


def target_load(base_load_E: Tensor) -> Tensor:
    """Return the load that an Expert is balanced against: its base's load on the domain, kept away from 0.

    q_i = (1 - u) * load_i + u / E, where u is UNIFORM_SHARE. A base whose layers are specialised sends the text of a
    domain to some in-layer experts more than to others; pulling that towards uniform would unlearn it.
    """
    return (1 - UNIFORM_SHARE) * shares(base_load_E) + UNIFORM_SHARE / base_load_E.shape[-1]


def router_z_loss(routing: Routing) -> Tensor:
    """Return the mean squared log-sum-exp of the router's logits (Zoph et al., "ST-MoE", 2022, equation 5)."""
    return routing.logsumexp_N.square().mean()


def shares(counts_E: Tensor) -> Tensor:
    """Return counts divided by their sum over the last dimension; all 0 if nothing was counted."""
    return counts_E / counts_E.sum(dim=-1, keepdim=True).clamp(min=1e-20)
