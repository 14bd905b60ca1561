"""The launches of the grouped products whose kernels are compiled without a GPU: each in each of its tiles."""

from collections.abc import Callable
from functools import partial

import torch

from moe_trainer.moe.triton import d_hidden, d_weights, product, up
from moe_trainer.moe.triton.tiles import Schedule, Tile

from .meta import meta, ordering

#: Sizes of Qwen3-30B-A3B.
TOKENS, HIDDEN, INNER, EXPERTS, ACTIVE = 16384, 2048, 768, 128, 8
SLOTS = TOKENS * ACTIVE


def _schedule() -> Schedule:
    return Schedule(ordering(TOKENS, EXPERTS, ACTIVE))


def _up(tile: Tile, keep: bool) -> None:
    h_S2F = meta(SLOTS, 2 * INNER) if keep else None
    x_ND, gate_up_E2FD = meta(TOKENS, HIDDEN), meta(EXPERTS, 2 * INNER, HIDDEN)
    up.up(x_ND, gate_up_E2FD, _schedule(), h_S2F, meta(SLOTS, INNER), (tile,))


def _down(tile: Tile) -> None:
    product.product(meta(SLOTS, INNER), meta(EXPERTS, HIDDEN, INNER), _schedule(), (tile,))


def _d_input(tile: Tile) -> None:
    gate_up_E2FD = meta(EXPERTS, 2 * INNER, HIDDEN)
    product.product(meta(SLOTS, 2 * INNER), gate_up_E2FD, _schedule(), (tile,), transposed=True)


def _d_hidden(tile: Tile) -> None:
    weights_NK = meta(TOKENS, ACTIVE, dtype=torch.float32)
    h_S2F, down_EDF = meta(SLOTS, 2 * INNER), meta(EXPERTS, HIDDEN, INNER)
    d_hidden.d_hidden(meta(TOKENS, HIDDEN), h_S2F, weights_NK, down_EDF, _schedule(), (tile,))


def _d_down(tile: Tile) -> None:
    d_weights.d_down(meta(TOKENS, HIDDEN), meta(SLOTS, INNER), _schedule(), (tile,))


def _d_gate_up(tile: Tile) -> None:
    d_weights.d_gate_up(meta(SLOTS, 2 * INNER), meta(TOKENS, HIDDEN), _schedule(), (tile,))


_LAUNCHES: dict[str, tuple[Callable[[Tile], None], tuple[Tile, ...]]] = {
    "up": (partial(_up, keep=True), up.TILES),
    "up, nothing kept": (partial(_up, keep=False), up.TILES),
    "down": (_down, product.TILES),
    "d_input": (_d_input, product.TILES),
    "d_hidden": (_d_hidden, d_hidden.TILES),
    "d_down": (_d_down, d_weights.TILES),
    "d_gate_up": (_d_gate_up, d_weights.TILES),
}

PRODUCT_LAUNCHES: dict[str, Callable[[], object]] = {
    f"{name} {tile.rows}x{tile.columns}x{tile.depth}, {tile.warps} warps, {tile.stages} stages": partial(
        launch, tile
    )
    for name, (launch, tiles) in _LAUNCHES.items()
    for tile in tiles
}
