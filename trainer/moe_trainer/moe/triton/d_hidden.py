"""The backward pass through down and SwiGLU in one kernel: dh, the gradient of the slots' weights, and s * a.

The product W_down^T dy exists only in registers and is used twice. Multiplied by s, it gives dh. Multiplied by a and
summed over each row, it gives the gradient of the slot's weight, so the outputs of the slots need not be kept. s * a,
which the gradient of W_down needs, is computed along the way.
"""
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from moe_trainer.moe.triton.tiles import (
    Schedule,
    Tile,
    halves,
    key,
    launch_fastest,
    locate,
    programs,
    rows_to_store,
    store,
)

#: Chosen by reasoning, not measured yet. The epilogue holds g, u and the product at once, so a tile of 128 x 128
#: needs two warpgroups to keep them in registers.
TILES = (
    Tile(rows=128, columns=128, depth=64, warps=8, stages=4),
    Tile(rows=128, columns=128, depth=64, warps=8, stages=3),
    Tile(rows=128, columns=64, depth=64, warps=4, stages=4, programs=2),
    Tile(rows=128, columns=64, depth=64, warps=8, stages=4),
    Tile(rows=64, columns=128, depth=64, warps=4, stages=4, programs=2),
    Tile(rows=64, columns=64, depth=64, warps=4, stages=4, programs=2),
)


def d_hidden(
    dy_ND: Tensor,
    h_S2F: Tensor,
    weights_NK: Tensor,
    down_EDF: Tensor,
    schedule: Schedule,
    tiles: tuple[Tile, ...] = TILES,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dh_S2F, (s a)_SF and dweights_NK. Rows of dropped slots contain anything; their weights' gradient is 0."""
    dispatch, (experts, hidden, inner) = schedule.dispatch, down_EDF.shape
    slots = h_S2F.shape[0]
    dh_S2F, sa_SF = torch.empty_like(h_S2F), h_S2F.new_empty(slots, inner)
    dweights_NK = torch.empty_like(weights_NK)

    def launch(tile: Tile) -> None:
        table = schedule.table(tile.rows)
        across = triton.cdiv(inner, tile.columns)
        # Each tile writes its part of a row's sum to a cell of its own, so the order of addition is fixed.
        parts_CS = torch.zeros(across, slots, dtype=torch.float32, device=h_S2F.device)
        _d_hidden[(programs(tile, schedule.most_tiles(tile.rows) * across, dy_ND.device),)](
            dy_ND,
            TensorDescriptor.from_tensor(down_EDF, [1, tile.depth, tile.columns]),
            TensorDescriptor.from_tensor(h_S2F.view(slots, 2, inner), [tile.rows, 1, tile.columns // 2]),
            weights_NK,
            rows_to_store(dh_S2F, tile, parts=2),
            rows_to_store(sa_SF, tile),
            parts_CS,
            dispatch.slots_S,
            dispatch.offsets_E1,
            table.first_E1,
            table.expert_T,
            experts,
            slots,
            HIDDEN=hidden,
            INNER=inner,
            ACTIVE=dispatch.active,
            **tile.launch,
        )
        torch.sum(parts_CS.view(across, *weights_NK.shape), dim=0, out=dweights_NK)

    if slots:  # the copy engine cannot describe a tensor without rows
        launch_fastest(key("d_hidden", dy_ND, down_EDF, dispatch), tiles, launch)
    return dh_S2F, sa_SF, dweights_NK


@triton.jit
def _d_hidden(
    dy_ND, down_EDF, h_S2F, weights_S, dh_S2F, sa_SF, parts_CS, slots_S, offsets_E1, first_E1, expert_T,
    experts, slots,
    HIDDEN: tl.constexpr, INNER: tl.constexpr, ACTIVE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    across: tl.constexpr = (INNER + COLUMNS - 1) // COLUMNS
    total = tl.load(first_E1 + experts) * across
    for index in tl.range(tl.program_id(0), total, tl.num_programs(0)):
        expert, begin, size, row, column = locate(index, offsets_E1, first_E1, expert_T, across, ROWS)
        rows = row + tl.arange(0, ROWS)
        depth = tl.arange(0, DEPTH)
        slot = tl.load(slots_S + begin + rows, mask=rows < size, other=0)
        dy = dy_ND + (slot // ACTIVE).to(tl.int64)[:, None] * HIDDEN + depth[None, :]
        da = tl.zeros((ROWS, COLUMNS), tl.float32)
        for start in tl.range(0, HIDDEN, DEPTH):
            if HIDDEN % DEPTH == 0:
                dy_tile = tl.load(dy + start)
            else:
                dy_tile = tl.load(dy + start, mask=(start + depth < HIDDEN)[None, :], other=0.0)
            down_tile = down_EDF.load([expert, start, column * COLUMNS]).reshape(DEPTH, COLUMNS)
            da = tl.dot(dy_tile, down_tile, da, input_precision="ieee")

        weight = tl.load(weights_S + slot, mask=rows < size, other=0.0).to(tl.float32)
        left, right = halves(da)
        part = _swiglu_backward(left, weight, h_S2F, dh_S2F, sa_SF, begin, size, row, column * COLUMNS)
        at = column * COLUMNS + COLUMNS // 2
        part += _swiglu_backward(right, weight, h_S2F, dh_S2F, sa_SF, begin, size, row, at)
        tl.store(parts_CS + column * slots + slot, part, mask=rows < size)


@triton.jit
def _swiglu_backward(da, weight, h_S2F, dh_S2F, sa_SF, begin, size, row, at):
    """Store dh and s * a for some columns of W_down^T dy; return what these columns add to the rows' sums."""
    gate = h_S2F.load([begin + row, 0, at]).reshape(da.shape).to(tl.float32)
    up = h_S2F.load([begin + row, 1, at]).reshape(da.shape).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    a = silu * up
    part = tl.sum(a * da, axis=1)
    store(sa_SF, begin, size, row, 0, at, weight[:, None] * a)
    da *= weight[:, None]
    dgate = da * up * (sigmoid + silu * (1 - sigmoid))
    store(dh_S2F, begin, size, row, 0, at, dgate)
    store(dh_S2F, begin, size, row, 1, at, da * silu)
    return part
