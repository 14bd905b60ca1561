"""The router in one pass over the logits; the backward pass, one more, is in router_gradient.py.

It computes the same as moe/plain_router.py, including gradients. Each token's row of logits is read once and stays in
registers while scores, choice, weights, log-sum-exp and the sums for balancing are computed from it. Each program writes
one row of partial sums, and a second launch adds the rows, so the result has the same bits every time. Of equal scores,
the in-layer expert with the lower number is chosen.

Shapes besides N, E, K and G: P groups of in-layer experts, R rows of partial sums, and C columns: E, padded so that the
number of expert groups and the size of a group are powers of two.
"""
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_trainer.moe.plain_router import EPSILON
from moe_trainer.moe.router_function import Outputs, Passes
from moe_trainer.moe.routing import RouterConfig
from moe_trainer.moe.triton.router_gradient import LOGITS, differentiate, score_columns

#: For more than MANY tokens, this many share a row of partial sums, so that few rows have to be added. For fewer tokens,
#: each program has one step, so that as many programs as possible run. Not measured yet.
TOKENS = 32
MANY = 8192


def _forward(logits_NE: Tensor, bias_E: Tensor | None, config: RouterConfig, groups: int) -> Outputs:
    """Compute in fp32 from logits of any narrower type; raises ValueError for fp64."""
    if logits_NE.dtype == torch.float64:
        raise ValueError("the fused router computes in fp32: for fp64 logits pass backend='torch'")
    logits_NE = logits_NE.contiguous()
    (tokens, experts), active = logits_NE.shape, config.active
    length = tokens // groups
    expert_groups = config.expert_groups if config.chosen_groups < config.expert_groups else 1
    size = experts // expert_groups
    outer, padded = triton.next_power_of_2(expert_groups), triton.next_power_of_2(size)
    rows = max(1, min(TOKENS, LOGITS // (outer * padded)))
    steps = TOKENS // rows if tokens > MANY else 1
    parts = max(1, triton.cdiv(length, rows * steps))

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=logits_NE.device)

    experts_NK, weights_NK = empty(tokens, active, dtype=torch.int64), empty(tokens, active)
    counts_GE, probabilities_GE = empty(groups, experts, dtype=torch.int64), empty(groups, experts)
    logsumexp_N, logit_rms = empty(tokens), empty()
    counts_RE, sums_RE = empty(groups * parts, experts, dtype=torch.int32), empty(groups * parts, experts)
    squares_R = empty(groups * parts)
    _choose[(groups, parts)](
        logits_NE, bias_E, experts_NK, weights_NK, logsumexp_N, counts_RE, sums_RE, squares_R,
        length, experts, config.scale, EPSILON,
        ACTIVE=active, ACTIVE_PADDED=triton.next_power_of_2(active), SIGMOID=config.scores == "sigmoid",
        RENORMALISE=config.renormalise, GROUPS=expert_groups,
        CHOSEN=min(config.chosen_groups, expert_groups), SIZE=size, GROUPS_PADDED=outer, SIZE_PADDED=padded,
        TOKENS=rows, STEPS=steps,
    )  # fmt: skip
    _add[(groups, triton.cdiv(experts, 8))](
        counts_RE, sums_RE, squares_R, counts_GE, probabilities_GE, logit_rms, parts, length, experts,
        ROWS=min(256, triton.next_power_of_2(parts)), COLUMNS=8,
    )  # fmt: skip
    return experts_NK, weights_NK, counts_GE, probabilities_GE, logsumexp_N, logit_rms


FUSED = Passes(_forward, differentiate)

#: Replaces NaN in the choice: below every score, above what is closed, and still finite when doubled.
_WORST = tl.constexpr(-1e38)


@triton.jit
def _choose(
    logits_NE, bias_E, experts_NK, weights_NK, logsumexp_N, counts_RE, sums_RE, squares_R,
    length, experts, scale, epsilon,
    ACTIVE: tl.constexpr, ACTIVE_PADDED: tl.constexpr, SIGMOID: tl.constexpr, RENORMALISE: tl.constexpr,
    GROUPS: tl.constexpr, CHOSEN: tl.constexpr, SIZE: tl.constexpr,
    GROUPS_PADDED: tl.constexpr, SIZE_PADDED: tl.constexpr, TOKENS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    COLUMNS: tl.constexpr = GROUPS_PADDED * SIZE_PADDED
    group = tl.program_id(0)
    row = group * tl.num_programs(1) + tl.program_id(1)
    column = tl.arange(0, COLUMNS)
    real = (column // SIZE_PADDED < GROUPS) & (column % SIZE_PADDED < SIZE)
    expert = column // SIZE_PADDED * SIZE + column % SIZE_PADDED
    slot = tl.arange(0, ACTIVE_PADDED)[None, :]
    count = tl.zeros((COLUMNS,), tl.int32)
    sums = tl.zeros((COLUMNS,), tl.float32)
    squares = 0.0
    for step in range(STEPS):
        place = (tl.program_id(1) * STEPS + step) * TOKENS + tl.arange(0, TOKENS)
        inside = place < length
        token = group.to(tl.int64) * length + place
        there = inside[:, None] & real[None, :]
        logit = tl.load(logits_NE + token[:, None] * experts + expert[None, :], there, other=0).to(tl.float32)
        squares += tl.sum(logit * logit)
        score, probability, logsumexp = score_columns(logit, real, epsilon, SIGMOID)
        tl.store(logsumexp_N + token, logsumexp, inside)

        choice = score
        if bias_E is not None:
            choice += tl.load(bias_E + expert, real, other=0).to(tl.float32)[None, :]
            if CHOSEN == GROUPS:
                choice = tl.where(score == 0, _WORST, choice)
        choice = tl.where(choice == choice, choice, _WORST)
        choice = tl.where(real[None, :], choice, -float("inf"))
        if CHOSEN < GROUPS:
            choice = _close_groups(choice, SIGMOID and SIZE > 1, CHOSEN, GROUPS_PADDED, SIZE_PADDED)
        chosen = tl.zeros((TOKENS, ACTIVE_PADDED), tl.int32)
        weight = tl.zeros((TOKENS, ACTIVE_PADDED), tl.float32)
        for k in range(ACTIVE):
            best = tl.argmax(choice, 1)
            this = column[None, :] == best[:, None]
            chosen = tl.where(slot == k, (best // SIZE_PADDED * SIZE + best % SIZE_PADDED)[:, None], chosen)
            weight = tl.where(slot == k, tl.sum(tl.where(this, score, 0), 1)[:, None], weight)
            count += tl.sum((this & inside[:, None]).to(tl.int32), 0)
            choice = tl.where(this, -float("inf"), choice)
        if RENORMALISE:
            weight /= tl.sum(weight, 1)[:, None] + epsilon
        written = inside[:, None] & (slot < ACTIVE)
        tl.store(experts_NK + token[:, None] * ACTIVE + slot, chosen.to(tl.int64), written)
        tl.store(weights_NK + token[:, None] * ACTIVE + slot, weight * scale, written)
        sums += tl.sum(tl.where(there, probability, 0), 0)
    tl.store(counts_RE + row * experts + expert, count, real)
    tl.store(sums_RE + row * experts + expert, sums, real)
    tl.store(squares_R + row, squares)


@triton.jit
def _close_groups(
    choice, TWO: tl.constexpr, CHOSEN: tl.constexpr, GROUPS: tl.constexpr, SIZE: tl.constexpr
):  # fmt: skip
    """Return the choice with all but the best CHOSEN groups at minus infinity."""
    TOKENS: tl.constexpr = choice.shape[0]
    choice_TPe = tl.reshape(choice, (TOKENS, GROUPS, SIZE))
    score = tl.max(choice_TPe, 2)
    if TWO:
        first = tl.arange(0, SIZE)[None, None, :] == tl.argmax(choice_TPe, 2)[:, :, None]
        score += tl.max(tl.where(first, -float("inf"), choice_TPe), 2)
    open = tl.zeros((TOKENS, GROUPS), tl.int32)
    for _ in range(CHOSEN):
        this = tl.arange(0, GROUPS)[None, :] == tl.argmax(score, 1)[:, None]
        open = tl.where(this, 1, open)
        score = tl.where(this, -float("inf"), score)
    closed = tl.where(open[:, :, None] == 1, choice_TPe, -float("inf"))
    return tl.reshape(closed, (TOKENS, GROUPS * SIZE))


@triton.jit
def _add(
    counts_RE, sums_RE, squares_R, counts_GE, probabilities_GE, logit_rms, parts, length, experts,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    group, block = tl.program_id(0), tl.program_id(1)
    expert = block * COLUMNS + tl.arange(0, COLUMNS)
    count = tl.zeros((COLUMNS,), tl.int64)
    total = tl.zeros((COLUMNS,), tl.float32)
    for first in range(0, parts, ROWS):
        part = first + tl.arange(0, ROWS)
        cell = (group * parts + part)[:, None] * experts + expert[None, :]
        there = (part < parts)[:, None] & (expert < experts)[None, :]
        count += tl.sum(tl.load(counts_RE + cell, there, other=0).to(tl.int64), 0)
        total += tl.sum(tl.load(sums_RE + cell, there, other=0), 0)
    tl.store(counts_GE + group * experts + expert, count, expert < experts)
    tl.store(probabilities_GE + group * experts + expert, total / tl.maximum(length, 1), expert < experts)
    if (group == 0) & (block == 0):
        rows = tl.num_programs(0) * parts
        squares = 0.0
        for first in range(0, rows, ROWS):
            row = first + tl.arange(0, ROWS)
            squares += tl.sum(tl.load(squares_R + row, row < rows, other=0))
        logits = tl.num_programs(0).to(tl.float32) * length * experts
        tl.store(logit_rms, tl.sqrt(squares / tl.maximum(logits, 1)))
