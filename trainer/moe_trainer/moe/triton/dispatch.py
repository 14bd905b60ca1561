"""Orders the slots of a batch by in-layer expert, without a sort and without waiting for the host.

A counting sort in three launches. Their sizes depend only on S and E, so a CUDA graph can hold it:

    rank     per tile of slots: how often each in-layer expert occurs, and each slot's rank among those of its expert
    prefix   per in-layer expert: how many of its slots are in earlier tiles
    place    per tile: place = slots of lower experts + slots of this expert in earlier tiles + rank in the tile

Dropped slots (value E) form one more bin, which comes last; so every row of ``counts`` has E + 1 bins.
"""
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_trainer.moe.dispatch import Dispatch

#: Slots per tile. Ranking compares every slot of a tile with every other one, so a larger tile means more work and a
#: smaller table. Chosen by reasoning, not measured yet.
TILE = 256
#: Number of tiles per step of the prefix.
PREFIX = 1024


def dispatch_slots(experts_NK: Tensor, experts: int) -> Dispatch:
    """Return the stable ordering of the slots by in-layer expert, in int32.

    ``experts_NK`` holds numbers below ``experts``, or ``experts`` for a slot that was dropped. Equals
    :func:`moe_trainer.moe.dispatch.dispatch_slots`.
    """
    slots = experts_NK.numel()
    tiles = max(1, triton.cdiv(slots, TILE))
    bins = triton.next_power_of_2(experts + 1)
    chosen_S = experts_NK.contiguous()

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int32, device=chosen_S.device)

    ranks_S, slots_S, places_S = empty(slots), empty(slots), empty(slots)
    counts_BT, totals_B, offsets_E1 = empty(experts + 1, tiles), empty(experts + 1), empty(experts + 1)
    _rank[(tiles,)](chosen_S, ranks_S, counts_BT, slots, experts, TILE=TILE, BINS=bins, num_warps=8)
    _prefix[(experts + 1,)](counts_BT, totals_B, tiles, BLOCK=min(PREFIX, triton.next_power_of_2(tiles)))
    _place[(tiles,)](
        chosen_S, ranks_S, counts_BT, totals_B, slots_S, places_S, offsets_E1, slots, experts, TILE=TILE, BINS=bins
    )  # fmt: skip
    return Dispatch(slots_S, places_S, offsets_E1, experts_NK.shape[1])


@triton.jit
def _rank(chosen_S, ranks_S, counts_BT, slots, experts, TILE: tl.constexpr, BINS: tl.constexpr):
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    slot = tile * TILE + tl.arange(0, TILE)
    chosen = tl.load(chosen_S + slot, slot < slots, other=experts).to(tl.int32)
    rank = tl.zeros((TILE,), tl.int32)
    STEP: tl.constexpr = 16
    for first in range(tile * TILE, (tile + 1) * TILE, STEP):
        earlier = first + tl.arange(0, STEP)
        other = tl.load(chosen_S + earlier, earlier < slots, other=-1).to(tl.int32)
        equal = (chosen[:, None] == other[None, :]) & (earlier[None, :] < slot[:, None])
        rank += tl.sum(equal.to(tl.int32), axis=1)
    tl.store(ranks_S + slot, rank, slot < slots)
    count = tl.histogram(chosen, BINS, mask=slot < slots)
    bin = tl.arange(0, BINS)
    tl.store(counts_BT + bin * tiles + tile, count, bin <= experts)


@triton.jit
def _prefix(counts_BT, totals_B, tiles, BLOCK: tl.constexpr):
    # In place: a tile's count becomes the number of slots of the same expert in the tiles before it.
    bin = tl.program_id(0)
    total = 0
    for first in range(0, tiles, BLOCK):
        tile = first + tl.arange(0, BLOCK)
        count = tl.load(counts_BT + bin * tiles + tile, tile < tiles, other=0)
        tl.store(counts_BT + bin * tiles + tile, total + tl.cumsum(count, 0) - count, tile < tiles)
        total += tl.sum(count)
    tl.store(totals_B + bin, total)


@triton.jit
def _place(
    chosen_S, ranks_S, counts_BT, totals_B, slots_S, places_S, offsets_E1, slots, experts,
    TILE: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    bin = tl.arange(0, BINS)
    total = tl.load(totals_B + bin, bin <= experts, other=0)
    offset = tl.cumsum(total, 0) - total
    tl.store(offsets_E1 + bin, offset, (bin <= experts) & (tile == 0))
    slot = tile * TILE + tl.arange(0, TILE)
    chosen = tl.load(chosen_S + slot, slot < slots, other=experts).to(tl.int32)
    before = tl.load(counts_BT + chosen * tiles + tile, slot < slots, other=0)
    rank = tl.load(ranks_S + slot, slot < slots, other=0)
    place = tl.gather(offset, chosen, 0) + before + rank
    tl.store(places_S + slot, place, slot < slots)
    tl.store(slots_S + place, slot, slot < slots)
