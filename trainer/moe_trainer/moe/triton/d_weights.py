"""The gradients of the weights: for each in-layer expert, the sum of the outer products of its rows.

    dW_down    = sum dy (s a)^T      dy is read by token, s a by slot
    dW_gate_up = sum dh x^T          dh is read by slot, x by token

A sum has one term per row of the expert; without rows the gradient is 0. Experts with the most rows come first, so
that no long sum starts when all others are done.
"""
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

import triton
import triton.language as tl
from torch import Tensor

from moe_trainer.moe.triton.tiles import Schedule, Tile, key, launch_fastest, programs

#: Chosen by reasoning, as for the other products, and not measured yet. The sum runs over rows, so a small depth wastes
#: less in an expert's last step. Every second stage loads slots, which determine the rows that the other stages load.
TILES = (
    Tile(rows=128, columns=256, depth=64, warps=8, stages=5),
    Tile(rows=128, columns=256, depth=32, warps=8, stages=7),
    Tile(rows=128, columns=128, depth=64, warps=4, stages=5, programs=2),
    Tile(rows=128, columns=128, depth=64, warps=8, stages=7),
    Tile(rows=128, columns=128, depth=32, warps=8, stages=7),
)


def d_down(dy_ND: Tensor, sa_SF: Tensor, schedule: Schedule, tiles: tuple[Tile, ...] = TILES) -> Tensor:
    """Return ddown_EDF = the sum of dy (s a)^T over each expert's rows."""
    return _d_weights("d_down", dy_ND, sa_SF, schedule, tiles, left_by_token=True)


def d_gate_up(dh_S2F: Tensor, x_ND: Tensor, schedule: Schedule, tiles: tuple[Tile, ...] = TILES) -> Tensor:
    """Return dgate_up_E2FD = the sum of dh x^T over each expert's rows."""
    return _d_weights("d_gate_up", dh_S2F, x_ND, schedule, tiles, left_by_token=False)


def _d_weights(
    name: str, left: Tensor, right: Tensor, schedule: Schedule, tiles: tuple[Tile, ...], left_by_token: bool
) -> Tensor:
    dispatch = schedule.dispatch
    height, width = left.shape[1], right.shape[1]
    out_EHW = left.new_empty(dispatch.experts, height, width)

    def launch(tile: Tile) -> None:
        most = dispatch.experts * triton.cdiv(height, tile.rows) * triton.cdiv(width, tile.columns)
        _sum_of_products[(programs(tile, most, left.device),)](
            left,
            right,
            out_EHW,
            dispatch.slots_S,
            dispatch.offsets_E1,
            schedule.table(128).order_E,
            dispatch.experts,
            HEIGHT=height,
            WIDTH=width,
            ACTIVE=dispatch.active,
            LEFT_BY_TOKEN=left_by_token,
            **tile.launch,
        )

    launch_fastest(key(name, left, out_EHW, dispatch), tiles, launch)
    return out_EHW


@triton.jit
def _sum_of_products(
    left, right, out_EHW, slots_S, offsets_E1, order_E, experts,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, ACTIVE: tl.constexpr, LEFT_BY_TOKEN: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    down: tl.constexpr = (HEIGHT + ROWS - 1) // ROWS
    across: tl.constexpr = (WIDTH + COLUMNS - 1) // COLUMNS
    for index in tl.range(tl.program_id(0), experts * down * across, tl.num_programs(0)):
        expert = tl.load(order_E + index // (down * across))
        begin = tl.load(offsets_E1 + expert).to(tl.int32)
        end = tl.load(offsets_E1 + expert + 1).to(tl.int32)
        i = index // across % down * ROWS + tl.arange(0, ROWS)
        j = index % across * COLUMNS + tl.arange(0, COLUMNS)
        sums = tl.zeros((ROWS, COLUMNS), tl.float32)
        for start in tl.range(begin, end, DEPTH):
            places = start + tl.arange(0, DEPTH)
            real = places < end
            tokens = tl.load(slots_S + places, mask=real, other=0) // ACTIVE
            left_rows = (tokens if LEFT_BY_TOKEN else places).to(tl.int64)
            right_rows = (places if LEFT_BY_TOKEN else tokens).to(tl.int64)
            # Both are masked: the place of a dropped slot may hold NaN, which would remain NaN if multiplied by 0.
            left_tile = tl.load(
                left + left_rows[:, None] * HEIGHT + i[None, :],
                mask=real[:, None] & (i < HEIGHT)[None, :],
                other=0.0,
            )
            right_tile = tl.load(
                right + right_rows[:, None] * WIDTH + j[None, :],
                mask=real[:, None] & (j < WIDTH)[None, :],
                other=0.0,
            )
            sums = tl.dot(left_tile.T, right_tile, sums, input_precision="ieee")

        out = out_EHW + expert.to(tl.int64) * (HEIGHT * WIDTH) + i.to(tl.int64)[:, None] * WIDTH + j[None, :]
        tl.store(out, sums.to(out_EHW.dtype.element_ty), mask=(i < HEIGHT)[:, None] & (j < WIDTH)[None, :])
