"""Rows times the weights of their in-layer expert: y = W_down a, and dx = W_gate_up^T dh.

Both write one row per slot, in the slots' order, and combine.py adds them up for each token. That costs less than
scattering from here would, since independent programs compute the rows of a token.
"""
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

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

#: Chosen by reasoning, not measured yet. The widest tile does the most work per byte that it loads; the others
#: leave room for a second program, which multiplies while the first stores, or suit experts with few rows.
TILES = (
    Tile(rows=128, columns=256, depth=64, warps=8, stages=3),
    Tile(rows=128, columns=128, depth=64, warps=4, stages=3, programs=2),
    Tile(rows=128, columns=128, depth=64, warps=8, stages=4),
    Tile(rows=64, columns=256, depth=64, warps=4, stages=4),
    Tile(rows=64, columns=128, depth=64, warps=4, stages=4, programs=2),
)


def product(
    rows_SI: Tensor,
    weights_E: Tensor,
    schedule: Schedule,
    tiles: tuple[Tile, ...] = TILES,
    transposed: bool = False,
) -> Tensor:
    """Return rows_SO: each row times its expert's weights E x O x I, or E x I x O if they are ``transposed``.

    Rows of dropped slots contain anything.
    """
    dispatch = schedule.dispatch
    slots, inputs = rows_SI.shape
    outputs = weights_E.shape[2 if transposed else 1]
    rows_SO = rows_SI.new_empty(slots, outputs)

    def launch(tile: Tile) -> None:
        table = schedule.table(tile.rows)
        most = schedule.most_tiles(tile.rows) * triton.cdiv(outputs, tile.columns)
        block = [1, tile.depth, tile.columns] if transposed else [1, tile.columns, tile.depth]
        _product[(programs(tile, most, rows_SI.device),)](
            TensorDescriptor.from_tensor(rows_SI, [tile.rows, tile.depth]),
            TensorDescriptor.from_tensor(weights_E, block),
            rows_to_store(rows_SO, tile),
            dispatch.offsets_E1,
            table.first_E1,
            table.expert_T,
            dispatch.experts,
            INPUTS=inputs,
            OUTPUTS=outputs,
            TRANSPOSED=transposed,
            **tile.launch,
        )

    if slots:  # the copy engine cannot describe a tensor without rows
        launch_fastest(key(f"product {transposed}", rows_SI, weights_E, dispatch), tiles, launch)
    return rows_SO


@triton.jit
def _product(
    rows_SI, weights_E, rows_SO, offsets_E1, first_E1, expert_T, experts,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, TRANSPOSED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    across: tl.constexpr = (OUTPUTS + COLUMNS - 1) // COLUMNS
    total = tl.load(first_E1 + experts) * across
    # The loops over tiles and depth are flattened into one: the next tile is being loaded while this one is stored.
    for index in tl.range(tl.program_id(0), total, tl.num_programs(0), flatten=True):
        expert, begin, size, row, column = locate(index, offsets_E1, first_E1, expert_T, across, ROWS)
        sums = tl.zeros((ROWS, COLUMNS), tl.float32)
        for start in tl.range(0, INPUTS, DEPTH):
            # An expert's last tile also reads rows of the next expert; their results are never stored.
            rows_tile = rows_SI.load([begin + row, start])
            if TRANSPOSED:
                weights_tile = weights_E.load([expert, start, column * COLUMNS]).reshape(DEPTH, COLUMNS)
            else:
                weights_tile = weights_E.load([expert, column * COLUMNS, start]).reshape(COLUMNS, DEPTH).T
            sums = tl.dot(rows_tile, weights_tile, sums, input_precision="ieee")
        left, right = halves(sums.to(rows_SO.dtype))
        at = column * COLUMNS
        store(rows_SO, begin, size, row, 0, at, left)
        store(rows_SO, begin, size, row, 0, at + COLUMNS // 2, right)
