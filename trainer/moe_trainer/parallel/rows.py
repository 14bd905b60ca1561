"""Which rows of a tensor each process holds: every part of a spread tensor is some of its rows, one after the other."""

from itertools import product
from typing import TYPE_CHECKING

from torch import Tensor

from moe_trainer.parallel.spread import local

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def rows_of(tensor: Tensor) -> slice:
    """Return which rows of the whole this process holds; all where it is no spread tensor (spread.placed)."""
    if local(tensor) is tensor:
        return slice(0, tensor.shape[0] if tensor.dim() else 1)
    spread: DTensor = tensor  # type: ignore[assignment]
    coordinate = spread.device_mesh.get_coordinate()
    assert coordinate is not None, "this process is outside of the tensor's mesh"
    return _rows_at(spread, tuple(coordinate))


def holders(tensor: "DTensor") -> dict[int, slice]:
    """Return the ranks that hold a spread tensor between them, with their rows; of replicas the first alone."""
    ranks = tensor.device_mesh.mesh
    return {
        int(ranks[coordinate]): _rows_at(tensor, coordinate)
        for coordinate in product(*map(range, ranks.shape))
        if all(
            place.is_shard() or not number
            for place, number in zip(tensor.placements, coordinate, strict=True)
        )
    }


def _rows_at(tensor: "DTensor", coordinate: tuple[int, ...]) -> slice:
    """Return the rows of the process at a place of the mesh, along each of whose dimensions they are cut again."""
    rows = range(tensor.shape[0])
    for place, parts, number in zip(tensor.placements, tensor.device_mesh.shape, coordinate, strict=True):
        if place.is_shard():
            step = -(-len(rows) // parts)  # as torch.chunk: the last may be shorter, or empty
            rows = rows[number * step : (number + 1) * step]
    return slice(rows.start, rows.stop)
