"""How the grouped products are cut into tiles, and how a program finds its tile without asking the host.

In-layer expert e owns the rows offsets[e] … offsets[e + 1] of the ordered slots. They are cut into tiles with a fixed
number of rows, the last of which may be partly empty. A table, made on the device, gives the expert of each tile.
There are at most ceil(S / rows) + E tiles, so memory and grids have fixed sizes and nothing is read back. So a CUDA
graph can hold the whole layer, although no slot is ever dropped for lack of room.
"""
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.errors import OutOfResources
from triton.tools.ragged_tma import create_ragged_descriptor, to_ragged_indices
from triton.tools.tensor_descriptor import TensorDescriptor

from moe_trainer.moe.dispatch import Dispatch


@dataclass(frozen=True)
class Tile:
    """How the product of one kernel is cut into tiles and launched."""

    rows: int  #: Rows of the output in one tile.
    columns: int
    depth: int  #: Terms of each sum that one step of the loop adds.
    warps: int
    stages: int  #: Number of steps of the loop whose loads are in flight.
    programs: int = 1  #: Programs per multiprocessor: while one stores, another can compute.

    @property
    def launch(self) -> dict[str, Any]:
        """The keyword arguments of the launch in Triton."""
        return {
            "ROWS": self.rows,
            "COLUMNS": self.columns,
            "DEPTH": self.depth,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


@dataclass(frozen=True)
class Table:
    """The tiles of every in-layer expert, for one number of rows per tile; int32, on the device."""

    first_E1: Tensor  #: The first tile of each expert; the last entry is the number of all tiles.
    expert_T: Tensor  #: The expert of each tile; entries beyond the last tile contain anything.
    order_E: Tensor  #: The experts, ordered by their number of rows, the most first.


@dataclass
class Schedule:
    """The tables of one dispatch, each made when it is first needed."""

    dispatch: Dispatch
    tables: dict[int, Table] = field(default_factory=dict)

    def table(self, rows: int) -> Table:
        """Return the table for tiles of ``rows`` rows."""
        if rows not in self.tables:
            self.tables[rows] = _table(self.dispatch, rows, self.most_tiles(rows))
        return self.tables[rows]

    def most_tiles(self, rows: int) -> int:
        """Return the most tiles of ``rows`` rows that any routing can need."""
        return int(triton.cdiv(self.dispatch.slots_S.numel(), rows)) + self.dispatch.experts


def programs(tile: Tile, tiles: int, device: torch.device) -> int:
    """Return the size of a persistent grid: as many programs as can be resident, or fewer if there is less to do."""
    return max(1, min(tiles, tile.programs * _multiprocessors(device)))


def _multiprocessors(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return 132  # as on an H100; any number will do where kernels are only compiled or interpreted


def _table(dispatch: Dispatch, rows: int, most: int) -> Table:
    experts, device = dispatch.experts, dispatch.offsets_E1.device
    first_E1 = torch.empty(experts + 1, dtype=torch.int32, device=device)
    expert_T = torch.empty(most, dtype=torch.int32, device=device)
    order_E = torch.empty(experts, dtype=torch.int32, device=device)
    _fill_table[(experts,)](
        dispatch.offsets_E1,
        first_E1,
        expert_T,
        order_E,
        experts,
        ROWS=rows,
        EXPERTS=triton.next_power_of_2(experts),
    )
    return Table(first_E1, expert_T, order_E)


@triton.jit
def _fill_table(
    offsets_E1, first_E1, expert_T, order_E, experts, ROWS: tl.constexpr, EXPERTS: tl.constexpr
):  # fmt: skip
    """One program per expert: each counts the tiles before its own, which is cheaper than a separate prefix sum."""
    expert = tl.program_id(0)
    others = tl.arange(0, EXPERTS)
    real = others < experts
    begin_E = tl.load(offsets_E1 + others, mask=real, other=0).to(tl.int32)
    rows_E = tl.load(offsets_E1 + others + 1, mask=real, other=0).to(tl.int32) - begin_E
    tiles_E = (rows_E + ROWS - 1) // ROWS
    first = tl.sum(tl.where(others < expert, tiles_E, 0))
    tiles = tl.sum(tl.where(others == expert, tiles_E, 0))
    tl.store(first_E1 + expert, first)
    tl.store(first_E1 + experts, first + tiles, mask=expert == experts - 1)

    rows = tl.sum(tl.where(others == expert, rows_E, 0))
    before = real & ((rows_E > rows) | ((rows_E == rows) & (others < expert)))
    tl.store(order_E + tl.sum(before.to(tl.int32)), expert)

    for start in range(0, tiles, 128):
        tile = start + tl.arange(0, 128)
        tl.store(expert_T + first + tile, tl.zeros_like(tile) + expert, mask=tile < tiles)


#: Number of tiles, one below the other, that are computed before the next columns. Chosen by reasoning, not measured yet.
GROUP = tl.constexpr(8)


@triton.jit
def locate(index, offsets_E1, first_E1, expert_T, across, ROWS: tl.constexpr):
    """Return the expert, its first row, its number of rows, the tile's first row within the expert, and the column tile.

    A product is ``across`` tiles wide. Tiles that run at the same time should share rows and weights in the L2 cache,
    so the order goes down GROUP tiles before it goes right, and finishes one expert before the next.
    """
    expert = tl.load(expert_T + index // across)
    begin = tl.load(offsets_E1 + expert).to(tl.int32)
    rows = tl.load(offsets_E1 + expert + 1).to(tl.int32) - begin
    index -= tl.load(first_E1 + expert) * across
    above = index // (GROUP * across) * GROUP
    height = min(tl.cdiv(rows, ROWS) - above, GROUP)
    index -= above * across
    return expert, begin, rows, (above + index % height) * ROWS, index // height


@triton.jit
def halves(tile):
    """Return the left and right half of a tile's columns; processing one after the other needs half the memory."""
    rows: tl.constexpr = tile.shape[0]
    columns: tl.constexpr = tile.shape[1]
    return tile.reshape(rows, 2, columns // 2).permute(0, 2, 1).split()


def rows_to_store(rows_SC: Tensor, tile: Tile, parts: int = 1) -> TensorDescriptor:
    """Describe rows whose columns consist of ``parts`` parts, for :func:`store`."""
    slots, columns = rows_SC.shape
    return create_ragged_descriptor(
        rows_SC.view(slots, parts, columns // parts), [tile.rows, 1, tile.columns // 2]
    )


@triton.jit
def store(rows_SC, begin, size, row, part: tl.constexpr, column, tile):
    """Store a tile from row ``row`` of an expert on; what lies beyond its ``size`` rows or beyond the part is not stored.

    The copy engine does the clipping, so no registers are needed for a mask or for one pointer per element.
    """
    start, middle, end = to_ragged_indices(begin, size, row)
    shape: tl.constexpr = (1, 1, tile.shape[0], 1, tile.shape[1])
    rows_SC.store([start, middle, end, part, column], tile.to(rows_SC.dtype).reshape(shape))


#: The fastest tile of each kernel for each key, as measured in this process.
_fastest: dict[tuple[object, ...], Tile] = {}


def key(kernel: str, rows: Tensor, weights_E: Tensor, dispatch: Dispatch) -> tuple[object, ...]:
    """Return all that the choice of a kernel's fastest tile depends on; the number of slots is rounded to a power of two."""
    slots = dispatch.slots_S.numel().bit_length()
    return (kernel, *weights_E.shape, dispatch.active, slots, rows.dtype, rows.device)


def launch_fastest(key: tuple[object, ...], tiles: tuple[Tile, ...], launch: Callable[[Tile], None]) -> None:
    """Launch a kernel with the fastest of its tiles, timing all of them if the key is new.

    A launch can be repeated, since it only reads its inputs and overwrites its outputs. While a CUDA graph is captured
    nothing can be timed, so a new key gets the first tile, which is expected to be the best.

    Tiles differ in the order of their sums, so a process that finds another one fastest gets other last bits. With
    ``torch.use_deterministic_algorithms(True)`` nothing is timed and the first tile is always used.
    """
    if len(tiles) == 1 or torch.are_deterministic_algorithms_enabled():
        return launch(tiles[0])
    if key not in _fastest and not torch.cuda.is_current_stream_capturing():
        _fastest[key] = min(tiles, key=lambda tile: _milliseconds(lambda: launch(tile)))
    return launch(_fastest.get(key, tiles[0]))


def _milliseconds(launch: Callable[[], None]) -> float:
    try:
        return float(triton.testing.do_bench(launch, warmup=5, rep=20, return_mode="median"))
    except OutOfResources:  # the tile needs more shared memory than the device has
        return float("inf")
