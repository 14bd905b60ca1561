"""Gathers the rows of each token's slots from the ordering and adds them: the last step of both passes."""
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_trainer.moe.dispatch import Dispatch


def combine(rows_SD: Tensor, dispatch: Dispatch, weights_NK: Tensor | None = None) -> Tensor:
    """Return y_ND: for each token the sum of its slots' rows, weighted or plain, added in fp32.

    ``rows_SD`` is in the order of places. Rows of dropped slots are not read. Since each token gathers its
    own rows, nothing is added atomically and the result has the same bits every time.
    """
    slots, hidden = rows_SD.shape
    y_ND = torch.empty(slots // dispatch.active, hidden, dtype=rows_SD.dtype, device=rows_SD.device)
    block = _block(hidden)
    _combine[(y_ND.shape[0], triton.cdiv(hidden, block))](
        rows_SD, dispatch.places_S, dispatch.offsets_E1, weights_NK, y_ND, hidden, dispatch.experts,
        ACTIVE=dispatch.active, WEIGHTED=weights_NK is not None, BLOCK=block, num_warps=max(1, block // 256),
    )  # fmt: skip
    return y_ND


def _block(hidden: int) -> int:
    """Return the number of columns that a program adds: a power of two that divides the row, unless only small ones do.

    A thread adds eight columns, which are 16 bytes per row in bf16; its loads from all K rows are in flight at once.
    """
    divisor = hidden & -hidden
    return min(1024, divisor if divisor >= 256 else triton.next_power_of_2(hidden))


@triton.jit
def _combine(
    rows_SD, places_S, offsets_E1, weights_NK, y_ND, hidden, experts,
    ACTIVE: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    kept = tl.load(offsets_E1 + experts)
    total = tl.zeros((BLOCK,), tl.float32)
    for choice in tl.static_range(ACTIVE):
        place = tl.load(places_S + token * ACTIVE + choice)
        there = (column < hidden) & (place < kept)
        row = tl.load(rows_SD + place.to(tl.int64) * hidden + column, there, other=0).to(tl.float32)
        if WEIGHTED:
            row *= tl.load(weights_NK + token * ACTIVE + choice)
        total += row
    tl.store(y_ND + token * hidden + column, total.to(y_ND.dtype.element_ty), column < hidden)
