"""Fills in weights after the model is spread: each process reads only its own rows.

    an outline        a model on the meta device: modules, names and shapes, but no memory
    spread(model)     determines which rows of each tensor this process holds (spread.py)
    fill(model, …)    gives these rows memory, and reads them

So no process ever holds more than its own part and one tensor. Models that cannot be read by rows from files are loaded
as a whole and cut afterwards: presets that start from a seed, which are small, and models into which an adapter is
merged.
"""

from collections.abc import Iterable

import torch
from torch import nn

from moe_trainer.models.causal_model import CausalModel
from moe_trainer.parallel.processes import ALONE, Processes
from moe_trainer.parallel.spread import held_rows, local, placed
from moe_trainer.weights.reading import RowReader


def is_outline(model: CausalModel) -> bool:
    """Return whether a model's weights are still to be filled in."""
    return any(weight.is_meta for weight in model.weights().values())


def rows_of_all(model: CausalModel) -> dict[str, RowReader]:
    """Return readers of the weights of a whole model, by name."""
    return {name: weight.detach().__getitem__ for name, weight in model.weights().items()}


def fill(model: CausalModel, processes: Processes, weights: Iterable[tuple[str, RowReader]]) -> None:
    """Give a spread outline memory, and fill in its weights; ``weights`` must name all of them."""
    _take_memory(model)
    left = put(model, weights, processes)
    assert not left, f"nothing fills {', '.join(left)}"


@torch.no_grad()
def put(
    model: CausalModel, weights: Iterable[tuple[str, RowReader]], processes: Processes = ALONE
) -> set[str]:
    """Set some weights of a model, in each process its own rows; return the names of the others."""
    places = placed(model.weights(), model, processes)
    for name, rows in weights:
        place = places.pop(name)
        mine = held_rows(place)
        if mine.start < mine.stop:
            local(place).copy_(rows(mine))
    return set(places)


def _take_memory(model: nn.Module) -> None:
    """Give every tensor of an outline uninitialised memory on the default device."""
    device = torch.get_default_device()
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # tied weights stay one parameter
    try:
        model._apply(  # type: ignore[no-untyped-call]  # like to_empty, which would clear tables too
            lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor
        )
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
