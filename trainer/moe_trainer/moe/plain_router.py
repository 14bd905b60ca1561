"""The router in plain torch; the other implementations must compute the same, including gradients.

Scores are stored as E x N: sums and comparisons over the few in-layer experts of a token then run over many tokens at
once, which on a CPU is several times as fast as with N x E.

With scores s of logits l, weights w of the chosen and probabilities p of all, the gradients add up as

    w_k = scale * s_k / Z    ds_k = scale / Z * (dw_k - sum_j dw_j s_j / Z)    Z = sum of the chosen s
    sigmoid     p = s / sum s    ds += (dp - sum dp p) / sum s               dl = ds s (1 - s)
    softmax     p = s            ds += dp                                    dl = s (ds - sum ds s)
    z = logsumexp l                                                          dl += dz softmax(l)

Shapes besides the package's: P groups of in-layer experts, e in-layer experts of a group, L tokens of a sequence.
"""

import math

import torch
from torch import Tensor

from moe_trainer.moe.router_function import OutputGradients, Outputs, Passes
from moe_trainer.moe.routing import RouterConfig

#: Added to a sum of sigmoids before dividing by it, as in DeepSeek-V3 and its descendants.
EPSILON = 1e-20

#: The score of an in-layer expert that cannot be chosen: below all others, but finite.
_CLOSED = -1e38

_EXPERT_BITS = (1 << 29) - 1

#: For up to this many tokens, sorting their scores takes less time than a few passes over all scores.
_FEW = 128


def _forward(logits_NE: Tensor, bias_E: Tensor | None, config: RouterConfig, groups: int) -> Outputs:
    """Compute in fp32, or fp64 if the logits are."""
    logits_EN = _columns(logits_NE)
    tokens, length = len(logits_NE), len(logits_NE) // groups
    highest_N = logits_EN.amax(dim=0)
    powers_EN = (logits_EN - highest_N).exp_()
    total_N = powers_EN.sum(dim=0)
    if config.scores == "softmax":
        scores_EN = probabilities_EN = powers_EN.div_(total_N)
    else:
        scores_EN = logits_EN.sigmoid()
        probabilities_EN = scores_EN / (scores_EN.sum(dim=0) + EPSILON)
    experts_NK = _choose(scores_EN, config, bias_E)
    weights_KN = scores_EN.gather(0, experts_NK.T)
    if config.renormalise:
        weights_KN /= weights_KN.sum(dim=0) + EPSILON
    if config.scale != 1:
        weights_KN *= config.scale
    return (
        experts_NK,
        weights_KN.T.contiguous(),
        _counts(experts_NK, config.experts, groups),
        probabilities_EN.view(config.experts, groups, length).sum(dim=2).T / max(1, length),
        total_N.log_().add_(highest_N),
        torch.linalg.vector_norm(logits_EN) / max(1, tokens * config.experts) ** 0.5,
    )


def _backward(
    logits_NE: Tensor,
    experts_NK: Tensor,
    logsumexp_N: Tensor,
    gradients: OutputGradients,
    config: RouterConfig,
    groups: int,
) -> Tensor:
    """Return the gradient of the logits."""
    dweights_NK, dprobabilities_GE, dlogsumexp_N = gradients
    logits_EN = _columns(logits_NE)
    softmax_EN = (logits_EN - logsumexp_N).exp_()
    scores_EN = softmax_EN if config.scores == "softmax" else logits_EN.sigmoid()
    dscores_EN = _spread(dprobabilities_GE, scores_EN, config, groups)
    if dweights_NK is not None:
        experts_KN = experts_NK.T.long()
        dchosen_KN = _chosen_gradient(dweights_NK, scores_EN.gather(0, experts_KN), config)
        dscores_EN.scatter_add_(0, experts_KN, dchosen_KN)
    if config.scores == "softmax":
        inner_N = (dscores_EN * scores_EN).sum(dim=0)
        dlogits_EN = dscores_EN.sub_(inner_N if dlogsumexp_N is None else inner_N - dlogsumexp_N)
        return dlogits_EN.mul_(scores_EN).T.to(logits_NE.dtype)
    dlogits_EN = dscores_EN.mul_(scores_EN).mul_(1 - scores_EN)
    if dlogsumexp_N is not None:
        dlogits_EN += softmax_EN.mul_(dlogsumexp_N)
    return dlogits_EN.T.to(logits_NE.dtype)


PLAIN = Passes(_forward, _backward)


def _spread(dprobabilities_GE: Tensor | None, scores_EN: Tensor, config: RouterConfig, groups: int) -> Tensor:
    """Return the gradient of the scores by the mean probabilities."""
    if dprobabilities_GE is None:
        return torch.zeros_like(scores_EN)
    length = scores_EN.shape[1] // groups
    dp_EN = (dprobabilities_GE.T / max(1, length)).repeat_interleave(length, dim=1)
    if config.scores == "softmax":
        return dp_EN
    total_N = scores_EN.sum(dim=0) + EPSILON
    return (dp_EN - (dp_EN * scores_EN).sum(dim=0) / total_N) / total_N


def _chosen_gradient(dweights_NK: Tensor, chosen_KN: Tensor, config: RouterConfig) -> Tensor:
    """Return the gradient of the chosen scores by the weights."""
    dweights_KN = dweights_NK.T * config.scale
    if config.renormalise:
        total_N = chosen_KN.sum(dim=0) + EPSILON
        dweights_KN = (dweights_KN - (dweights_KN * chosen_KN).sum(dim=0) / total_N) / total_N
    return dweights_KN


def _columns(logits_NE: Tensor) -> Tensor:
    """Return the logits as E x N in fp32, or in fp64 if they are."""
    wide = torch.promote_types(logits_NE.dtype, torch.float32)
    return logits_NE.detach().T.to(wide).contiguous()


def _choose(scores_EN: Tensor, config: RouterConfig, bias_E: Tensor | None) -> Tensor:
    """Return experts_NK: the K in-layer experts with the largest biased scores, best first."""
    if bias_E is not None:
        closed_EN = (
            scores_EN == 0
        )  # closed by their logits, such as rows of a bank that a sequence must not see
        scores_EN = scores_EN + bias_E[:, None]
        if config.chosen_groups == config.expert_groups:
            scores_EN.masked_fill_(closed_EN, _CLOSED)
    if config.chosen_groups < config.expert_groups:
        size = config.experts // config.expert_groups
        scores_PeN = scores_EN.view(config.expert_groups, size, scores_EN.shape[1])
        best = 1 if config.scores == "softmax" else min(2, size)
        scores_PN = scores_PeN.topk(best, dim=1).values.sum(dim=1)
        chosen_PN = scores_PN.topk(config.chosen_groups, dim=0).indices
        closed_PN = torch.ones_like(scores_PN, dtype=torch.bool).scatter_(0, chosen_PN, False)
        scores_EN = scores_PeN.masked_fill(closed_PN[:, None], _CLOSED).flatten(0, 1)
    if scores_EN.shape[1] > _FEW and scores_EN.device.type == "cpu" and scores_EN.dtype == torch.float32:
        return _largest(scores_EN, config.active, signed=bias_E is not None)
    by_score_NE = scores_EN.T.sort(dim=1, descending=True, stable=True).indices
    return by_score_NE[:, : config.active].contiguous()


def _largest(scores_EN: Tensor, active: int, signed: bool) -> Tensor:
    """Return the numbers of each token's ``active`` largest scores; of equal ones the first. Faster than topk on a CPU.

    A single-precision number leaves 29 of the 52 bits of a double's mantissa unused. They hold the number of the
    in-layer expert, so that one vectorised maximum over all tokens finds both the score and its place. In negative
    numbers, which occur if ``signed``, larger bits mean smaller numbers.
    """
    experts, tokens = scores_EN.shape
    key_EN, place_E1 = scores_EN.double(), torch.arange(experts)[:, None]
    from_last_E1 = experts - 1 - place_E1
    key_EN.view(torch.int64).add_(torch.where(key_EN < 0, place_E1, from_last_E1) if signed else from_last_E1)
    largest_NK = torch.empty(tokens, active, dtype=torch.int64)
    for choice in range(active):
        best_N = key_EN.amax(dim=0)
        bits_N = best_N.view(torch.int64) & _EXPERT_BITS
        largest_N = torch.where(best_N < 0, bits_N, experts - 1 - bits_N) if signed else experts - 1 - bits_N
        largest_N.clamp_(min=0, max=experts - 1)  # the maximum of NaN has arbitrary bits
        largest_NK[:, choice] = largest_N
        key_EN.scatter_(0, largest_N[None], -math.inf)
    return largest_NK


def _counts(experts_NK: Tensor, experts: int, groups: int) -> Tensor:
    """Count the slots of each group's in-layer experts; bincount is not used on devices, as it waits for them."""
    if groups == 1 and experts_NK.device.type == "cpu":
        return torch.bincount(experts_NK.flatten(), minlength=experts)[None]
    chosen_GS = experts_NK.reshape(groups, -1)
    counts_GE = torch.zeros(groups, experts, dtype=torch.int64, device=experts_NK.device)
    return counts_GE.scatter_add_(1, chosen_GS, torch.ones_like(chosen_GS))
