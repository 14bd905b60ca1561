"""The forward pass for few tokens, as in decoding: as fast as the weights that are used can be read.

With 64 tokens of Qwen3-30B-A3B an in-layer expert has four rows on average, so the multiplication costs almost nothing
and the time goes into reading the weights. Here the weights are the left, tall operand. Each of their tiles is read by
one program, which holds all rows of its expert; if there are more rows than fit, it loops over them, and reads the tile
from the L2 cache from the second time on. Only experts that were chosen get programs: one per piece of F in the first
half of the layer, and one per piece of D in the second. The first half stores a, the second one row per slot, which
combine.py adds up. So nothing is added atomically and the result has the same bits every time.

Shapes besides the package's: C columns of the result, F or D; H is 2 if the weights are gate and up together, else 1.
"""
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

from dataclasses import replace

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from moe_trainer.moe.dispatch import Dispatch
from moe_trainer.moe.triton.combine import combine
from moe_trainer.moe.triton.tiles import Tile, key, launch_fastest

#: For more tokens than this, the tiled products (tiles.py) do less work.
MOST_TOKENS = 256

#: ``rows`` is replaced by the number of slots that a program holds (_rows). Chosen by reasoning, not measured yet. To
#: hide the memory's latency, a multiprocessor of an H100 needs about 32 KiB in flight. Three resident programs with four
#: stages of 16 KiB have more than enough; longer steps need fewer waits, and taller tiles fewer programs.
TILES = (
    Tile(rows=16, columns=64, depth=128, warps=4, stages=4),
    Tile(rows=16, columns=64, depth=128, warps=4, stages=3),
    Tile(rows=16, columns=64, depth=64, warps=4, stages=6),
    Tile(rows=16, columns=64, depth=256, warps=4, stages=3),
    Tile(rows=16, columns=128, depth=64, warps=4, stages=5),
    Tile(rows=16, columns=128, depth=128, warps=8, stages=4),
)


def skinny_forward(
    x_ND: Tensor, weights_NK: Tensor, gate_up_E2FD: Tensor, down_EDF: Tensor, dispatch: Dispatch
) -> Tensor:
    """Return y_ND of at most MOST_TOKENS tokens, without what a backward pass would need.

    Reads only the weights of the in-layer experts that were chosen. A row of D or F numbers must be a multiple of 16
    bytes, as the copy engine requires.
    """
    experts, twice, hidden = gate_up_E2FD.shape
    halves_E2FD = gate_up_E2FD.view(experts, 2, twice // 2, hidden)
    a_SF = _stream(x_ND, halves_E2FD, dispatch, gathered=True)
    rows_SD = _stream(a_SF, down_EDF.unsqueeze(1), dispatch, gathered=False)
    return combine(rows_SD, dispatch, weights_NK)


def _stream(rows_I: Tensor, weights_EHCI: Tensor, dispatch: Dispatch, gathered: bool) -> Tensor:
    """Return rows_SC: each slot's row times its expert's weights, through SwiGLU where H is 2.

    With ``gathered``, the rows are those of tokens; otherwise they are in the order of places.
    """
    experts, halves, outputs, inputs = weights_EHCI.shape
    slots = dispatch.slots_S.numel()
    rows_SC = rows_I.new_empty(slots, outputs)

    def launch(tile: Tile) -> None:
        height = tile.columns // halves
        _multiply[(triton.cdiv(outputs, height), min(experts, slots))](
            rows_I, TensorDescriptor.from_tensor(weights_EHCI, [1, halves, height, tile.depth]), rows_SC,
            dispatch.slots_S, dispatch.offsets_E1, experts,
            INPUTS=inputs, OUTPUTS=outputs, ACTIVE=dispatch.active, GATHERED=gathered, HALVES=halves,
            EXPERTS=triton.next_power_of_2(experts), **tile.launch,
        )  # fmt: skip

    tiles = tuple(replace(tile, rows=_rows(slots, experts)) for tile in TILES)
    launch_fastest(key("skinny", rows_I, weights_EHCI, dispatch), tiles, launch)
    return rows_SC


def _rows(slots: int, experts: int) -> int:
    """Return how many of an expert's rows a program holds: twice the mean, since experts are hit unevenly."""
    return max(16, min(64, int(triton.next_power_of_2(2 * slots // experts))))


@triton.jit
def _multiply(
    rows_I, weights_EHCI, rows_SC, slots_S, offsets_E1, experts,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, ACTIVE: tl.constexpr, GATHERED: tl.constexpr,
    HALVES: tl.constexpr, EXPERTS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    expert, begin, end = _hit(tl.program_id(1), offsets_E1, experts, EXPERTS)
    HEIGHT: tl.constexpr = COLUMNS // HALVES
    first_output = tl.program_id(0) * HEIGHT
    depth = tl.arange(0, DEPTH)
    for first in range(begin, end, ROWS):
        place = first + tl.arange(0, ROWS)
        mine = place < end
        row = tl.load(slots_S + place, mine, other=0) // ACTIVE if GATHERED else place
        source = rows_I + row.to(tl.int64)[None, :] * INPUTS + depth[:, None]
        sums = tl.zeros((COLUMNS, ROWS), tl.float32)
        for start in range(0, INPUTS, DEPTH):
            weights = weights_EHCI.load([expert, 0, first_output, start]).reshape(COLUMNS, DEPTH)
            there = mine[None, :] & (start + depth < INPUTS)[:, None]
            sums = tl.dot(weights, tl.load(source + start, there, other=0), sums, input_precision="ieee")
        if HALVES == 2:
            gate, up = sums.reshape(2, HEIGHT, ROWS).permute(1, 2, 0).split()
            sums = gate * tl.sigmoid(gate) * up
        output = first_output + tl.arange(0, HEIGHT)
        target = rows_SC + place.to(tl.int64)[None, :] * OUTPUTS + output[:, None]
        tl.store(target, sums.to(rows_SC.dtype.element_ty), mine[None, :] & (output < OUTPUTS)[:, None])


@triton.jit
def _hit(index, offsets_E1, experts, EXPERTS: tl.constexpr):
    """Return the ``index``-th expert that has rows, and the places of its rows; no places if there is no such expert."""
    expert = tl.arange(0, EXPERTS)
    begin = tl.load(offsets_E1 + expert, expert < experts, other=0)
    end = tl.load(offsets_E1 + expert + 1, expert < experts, other=0)
    hit = end > begin
    this = hit & (tl.cumsum(hit.to(tl.int32), 0) == index + 1)
    return (
        tl.sum(tl.where(this, expert, 0)),
        tl.sum(tl.where(this, begin, 0)),
        tl.sum(tl.where(this, end, 0)),
    )
