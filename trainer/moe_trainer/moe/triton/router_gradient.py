"""The router's backward pass: one pass over the logits, in which the scores are computed again.

With scores s of logits l, weights w of the chosen and probabilities p of all, the gradients add up as

    w_k = scale * s_k / Z    ds_k = scale / Z * (dw_k - sum_j dw_j s_j / Z)    Z = sum of the chosen s
    sigmoid     p = s / sum s    ds += (dp - sum dp p) / sum s               dl = ds s (1 - s)
    softmax     p = s            ds += dp                                    dl = s (ds - sum ds s)
    z = logsumexp l                                                          dl += dz softmax(l)
"""
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_trainer.moe.plain_router import EPSILON
from moe_trainer.moe.router_function import OutputGradients
from moe_trainer.moe.routing import RouterConfig

#: Number of logits that a program holds at once: eight per thread. Chosen by reasoning, not measured yet.
LOGITS = 1024


def differentiate(
    logits_NE: Tensor,
    experts_NK: Tensor,
    logsumexp_N: Tensor,
    gradients: OutputGradients,
    config: RouterConfig,
    groups: int,
) -> Tensor:
    """Return dlogits_NE, in the logits' type."""
    logits_NE = logits_NE.contiguous()
    tokens, experts = logits_NE.shape
    dlogits_NE = torch.empty_like(logits_NE)
    width = triton.next_power_of_2(experts)
    rows = max(1, LOGITS // width)
    _differentiate[(triton.cdiv(tokens, rows),)](
        logits_NE, experts_NK, logsumexp_N, *map(_contiguous, gradients), dlogits_NE,
        tokens, tokens // groups, experts, config.scale, EPSILON,
        ACTIVE=config.active, SIGMOID=config.scores == "sigmoid", RENORMALISE=config.renormalise,
        TOKENS=rows, COLUMNS=width,
    )  # fmt: skip
    return dlogits_NE


def _contiguous(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.contiguous()


@triton.jit
def score_columns(logit, real, epsilon, SIGMOID: tl.constexpr):
    """Return the score and the probability of each column, 0 for padding, and each row's log-sum-exp."""
    logit = tl.where(real[None, :], logit, -float("inf"))
    highest = tl.max(logit, 1)
    power = tl.exp(logit - highest[:, None])
    total = tl.sum(power, 1)
    if SIGMOID:
        score = tl.sigmoid(logit)
        probability = score / (tl.sum(score, 1) + epsilon)[:, None]
    else:
        score = power / total[:, None]
        probability = score
    return score, probability, highest + tl.log(total)


@triton.jit
def _differentiate(
    logits_NE, experts_NK, logsumexp_N, dweights_NK, dprobabilities_GE, dlogsumexp_N, dlogits_NE,
    tokens, length, experts, scale, epsilon,
    ACTIVE: tl.constexpr, SIGMOID: tl.constexpr, RENORMALISE: tl.constexpr,
    TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    column = tl.arange(0, COLUMNS)
    inside, real = token < tokens, column < experts
    there = inside[:, None] & real[None, :]
    cell = token[:, None] * experts + column[None, :]
    logit = tl.load(logits_NE + cell, there, other=0).to(tl.float32)
    score, probability, _ = score_columns(logit, real, epsilon, SIGMOID)

    dprobability = tl.zeros((TOKENS, COLUMNS), tl.float32)
    if dprobabilities_GE is not None:
        group = token // tl.maximum(length, 1)
        dprobability = tl.load(dprobabilities_GE + group[:, None] * experts + column[None, :], there, other=0)
        dprobability = dprobability.to(tl.float32) / length
    if SIGMOID:  # probability = score / (sum of scores + epsilon)
        common = tl.sum(dprobability * probability, 1)
        dscore = (dprobability - common[:, None]) / (tl.sum(score, 1) + epsilon)[:, None]
    else:
        dscore = dprobability
    if dweights_NK is not None:
        dscore += _dscore_of_weights(
            score, column, experts_NK + token * ACTIVE, dweights_NK + token * ACTIVE, inside, scale, epsilon,
            ACTIVE, RENORMALISE,
        )  # fmt: skip
    common = tl.sum(dscore * score, 1)  # softmax only
    dlogit = dscore * score * (1 - score) if SIGMOID else score * (dscore - common[:, None])
    if dlogsumexp_N is not None:
        dlogsumexp = tl.load(dlogsumexp_N + token, inside, other=0).to(tl.float32)
        logsumexp = tl.load(logsumexp_N + token, inside, other=0)
        dlogit += dlogsumexp[:, None] * tl.exp(logit - logsumexp[:, None])
    tl.store(dlogits_NE + cell, dlogit.to(dlogits_NE.dtype.element_ty), there)


@triton.jit
def _dscore_of_weights(
    score, column, chosen, dweights, inside, scale, epsilon, ACTIVE: tl.constexpr, RENORMALISE: tl.constexpr
):
    """Return the gradient of the scores, given weight_k = scale * score_k / (sum of the chosen scores + epsilon)."""
    dscore = tl.zeros_like(score)
    taken = tl.zeros_like(score)
    for k in range(ACTIVE):
        this = column[None, :] == tl.load(chosen + k, inside, other=0)[:, None]
        dweight = tl.load(dweights + k, inside, other=0).to(tl.float32) * scale
        dscore += tl.where(this, dweight[:, None], 0)
        taken = tl.where(this, 1.0, taken)
    if RENORMALISE:
        total = tl.sum(score * taken, 1) + epsilon
        common = tl.sum(dscore * score, 1) / total
        dscore = taken * (dscore - common[:, None]) / total[:, None]
    return dscore
