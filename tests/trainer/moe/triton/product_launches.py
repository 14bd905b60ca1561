"""The launches of the grouped products whose kernels are compiled without a GPU: each in each of its tiles."""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch

from moe_trainer.moe.triton import d_hidden, d_weights, product, up
from moe_trainer.moe.triton.skinny import skinny_forward
from moe_trainer.moe.triton.tiles import Schedule, Tile

from .meta import meta, ordering

sys.path.insert(0, str(Path(__file__).parents[4] / "benchmarks"))

from moe_bench.cases import DECODING, TRAINING, Shape

Launches = dict[str, Callable[[], object]]


def _schedule(shape: Shape) -> Schedule:
    return Schedule(ordering(shape.tokens, shape.experts, shape.active))


def _gate_up(shape: Shape) -> torch.Tensor:
    return meta(shape.experts, 2 * shape.inner, shape.hidden)


def _down_weights(shape: Shape) -> torch.Tensor:
    return meta(shape.experts, shape.hidden, shape.inner)


def _up(shape: Shape, tile: Tile, keep: bool) -> None:
    h_S2F = meta(shape.slots, 2 * shape.inner) if keep else None
    a_SF = meta(shape.slots, shape.inner)
    up.up(meta(shape.tokens, shape.hidden), _gate_up(shape), _schedule(shape), h_S2F, a_SF, (tile,))


def _down(shape: Shape, tile: Tile) -> None:
    product.product(meta(shape.slots, shape.inner), _down_weights(shape), _schedule(shape), (tile,))


def _d_input(shape: Shape, tile: Tile) -> None:
    dh_S2F = meta(shape.slots, 2 * shape.inner)
    product.product(dh_S2F, _gate_up(shape), _schedule(shape), (tile,), transposed=True)


def _d_hidden(shape: Shape, tile: Tile) -> None:
    dy_ND, h_S2F = meta(shape.tokens, shape.hidden), meta(shape.slots, 2 * shape.inner)
    weights_NK = meta(shape.tokens, shape.active, dtype=torch.float32)
    d_hidden.d_hidden(dy_ND, h_S2F, weights_NK, _down_weights(shape), _schedule(shape), (tile,))


def _d_down(shape: Shape, tile: Tile) -> None:
    dy_ND, sa_SF = meta(shape.tokens, shape.hidden), meta(shape.slots, shape.inner)
    d_weights.d_down(dy_ND, sa_SF, _schedule(shape), (tile,))


def _d_gate_up(shape: Shape, tile: Tile) -> None:
    dh_S2F, x_ND = meta(shape.slots, 2 * shape.inner), meta(shape.tokens, shape.hidden)
    d_weights.d_gate_up(dh_S2F, x_ND, _schedule(shape), (tile,))


_PRODUCTS: dict[str, tuple[Callable[[Shape, Tile], None], tuple[Tile, ...]]] = {
    "up": (partial(_up, keep=True), up.TILES),
    "up, nothing kept": (partial(_up, keep=False), up.TILES),
    "down": (_down, product.TILES),
    "d_input": (_d_input, product.TILES),
    "d_hidden": (_d_hidden, d_hidden.TILES),
    "d_down": (_d_down, d_weights.TILES),
    "d_gate_up": (_d_gate_up, d_weights.TILES),
}


def product_launches(shapes: Iterable[Shape]) -> Launches:
    """Return a call for each product of each shape in each of its tiles, by a name that says which."""
    return {
        f"{shape.name}: {name} {tile.rows}x{tile.columns}x{tile.depth}, {tile.warps} warps, "
        f"{tile.stages} stages": partial(launch, shape, tile)
        for shape in shapes
        for name, (launch, tiles) in _PRODUCTS.items()
        for tile in tiles
    }


def skinny_launches(shapes: Iterable[Shape]) -> Launches:
    """Return a call for the forward pass of few tokens for each shape; it compiles each of its tiles."""
    return {f"{shape.name}: skinny": partial(_skinny, shape) for shape in shapes}


def _skinny(shape: Shape) -> None:
    x_ND, weights_NK = meta(shape.tokens, shape.hidden), meta(shape.tokens, shape.active, dtype=torch.float32)
    order = ordering(shape.tokens, shape.experts, shape.active)
    skinny_forward(x_ND, weights_NK, _gate_up(shape), _down_weights(shape), order)


#: The launches of Qwen3-30B-A3B.
PRODUCT_LAUNCHES = product_launches(TRAINING[-1:])
#: Those of every other shape that the benchmark measures on a GPU, by the shape's name; decoding is one group.
BENCHMARK_LAUNCHES: dict[str, Launches] = {
    **{shape.name: product_launches([shape]) for shape in TRAINING[:-1]},
    "decoding": skinny_launches(DECODING),
}
