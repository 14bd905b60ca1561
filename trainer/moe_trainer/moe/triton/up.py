"""The first half of the forward pass in one kernel: h = W_gate_up x and a = silu(g) * u.

Each tile computes the same columns of g and of u, so SwiGLU needs no second pass over h. The rows of x are read where
they are, in the order of the slots, so no gathered copy of x is made.
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

#: Chosen by reasoning, not measured yet. A tile holds its columns of both g and u, so 128 x 128 here takes as many
#: registers as 128 x 256 elsewhere: the most that two warpgroups have. The half-width tile leaves room for a second
#: program, which multiplies while the first stores; tiles with fewer rows waste less on an expert that has few.
TILES = (
    Tile(rows=128, columns=128, depth=64, warps=8, stages=4),
    Tile(rows=128, columns=128, depth=64, warps=8, stages=3),
    Tile(rows=128, columns=64, depth=64, warps=4, stages=3, programs=2),
    Tile(rows=128, columns=64, depth=64, warps=8, stages=4),
    Tile(rows=64, columns=128, depth=64, warps=4, stages=4),
    Tile(rows=64, columns=64, depth=64, warps=4, stages=4, programs=2),
)


def up(
    x_ND: Tensor,
    gate_up_E2FD: Tensor,
    schedule: Schedule,
    h_S2F: Tensor | None,
    a_SF: Tensor | None,
    tiles: tuple[Tile, ...] = TILES,
) -> None:
    """Write h_S2F and a_SF, or only the one that is asked for; rows of dropped slots are left as they are.

    h has the same bits whether or not a is written too.
    """
    dispatch, (experts, twice, hidden) = schedule.dispatch, gate_up_E2FD.shape
    inner = twice // 2

    def launch(tile: Tile) -> None:
        table = schedule.table(tile.rows)
        most = schedule.most_tiles(tile.rows) * triton.cdiv(inner, tile.columns)
        _up[(programs(tile, most, x_ND.device),)](
            x_ND,
            TensorDescriptor.from_tensor(
                gate_up_E2FD.view(experts, 2, inner, hidden), [1, 2, tile.columns, tile.depth]
            ),
            None if h_S2F is None else rows_to_store(h_S2F, tile, parts=2),
            None if a_SF is None else rows_to_store(a_SF, tile),
            dispatch.slots_S,
            dispatch.offsets_E1,
            table.first_E1,
            table.expert_T,
            experts,
            HIDDEN=hidden,
            INNER=inner,
            ACTIVE=dispatch.active,
            **tile.launch,
        )

    if dispatch.slots_S.numel():  # the copy engine cannot describe a tensor without rows
        launch_fastest(key("up", x_ND, gate_up_E2FD, dispatch), tiles, launch)


@triton.jit
def _up(
    x_ND, gate_up_E2FD, h_S2F, a_SF, slots_S, offsets_E1, first_E1, expert_T, experts,
    HIDDEN: tl.constexpr, INNER: tl.constexpr, ACTIVE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    across: tl.constexpr = (INNER + COLUMNS - 1) // COLUMNS
    total = tl.load(first_E1 + experts) * across
    # The loops over tiles and depth are flattened into one: the next tile is being loaded while this one is
    # stored. That needs a single accumulator: with two, ptxas waits for each multiplication in turn.
    for index in tl.range(tl.program_id(0), total, tl.num_programs(0), flatten=True):
        expert, begin, size, row, column = locate(index, offsets_E1, first_E1, expert_T, across, ROWS)
        rows = row + tl.arange(0, ROWS)
        depth = tl.arange(0, DEPTH)
        # Below the expert's last row, token 0 is computed instead; its results are never stored.
        tokens = tl.load(slots_S + begin + rows, mask=rows < size, other=0) // ACTIVE
        x = x_ND + tokens.to(tl.int64)[:, None] * HIDDEN + depth[None, :]
        sums = tl.zeros((ROWS, 2 * COLUMNS), tl.float32)
        for start in tl.range(0, HIDDEN, DEPTH):
            if HIDDEN % DEPTH == 0:
                x_tile = tl.load(x + start)
            else:
                x_tile = tl.load(x + start, mask=(start + depth < HIDDEN)[None, :], other=0.0)
            weights = gate_up_E2FD.load([expert, 0, column * COLUMNS, start]).reshape(2 * COLUMNS, DEPTH)
            sums = tl.dot(x_tile, weights.T, sums, input_precision="ieee")

        gate, up = halves(sums)
        gate_left, gate_right = halves(gate)
        up_left, up_right = halves(up)
        at = column * COLUMNS
        _store(gate_left, up_left, h_S2F, a_SF, begin, size, row, at)
        _store(gate_right, up_right, h_S2F, a_SF, begin, size, row, at + COLUMNS // 2)


@triton.jit
def _store(gate, up, h_S2F, a_SF, begin, size, row, at):
    if h_S2F is not None:
        store(h_S2F, begin, size, row, 0, at, gate)
        store(h_S2F, begin, size, row, 1, at, up)
    if a_SF is not None:
        store(a_SF, begin, size, row, 0, at, gate * tl.sigmoid(gate) * up)
