"""Weights that come after the model is spread: each process takes its rows, straight from where they are whole.

    an outline        a model on the meta device: modules, names and shapes, and no memory
    spread(model)     says which rows of each tensor this process holds (spread.py)
    fill(model, …)    gives those memory, and reads them

So no process ever has more than its own part and one tensor. What has no file to be read from by rows comes
whole instead, and is cut when it is there: presets that begin from a seed, which are small, and models that an
adapter is merged into.
"""

from collections.abc import Iterable

import torch
from torch import nn

from moe_trainer.models.causal_model import CausalModel
from moe_trainer.parallel.processes import ALONE, Processes
from moe_trainer.parallel.spread import held_rows, local, placed
from moe_trainer.weights.reading import RowReader


def is_outline(model: CausalModel) -> bool:
    """Say whether the weights of a model are yet to come."""
    return any(weight.is_meta for weight in model.weights().values())


def rows_of_all(model: CausalModel) -> dict[str, RowReader]:
    """Return what reads some rows of each weight of a model that is whole, by name."""
    return {name: weight.detach().__getitem__ for name, weight in model.weights().items()}


def fill(model: CausalModel, processes: Processes, weights: Iterable[tuple[str, RowReader]]) -> None:
    """Give a spread outline memory, and its weights: all of them, by their names in the model."""
    _take_memory(model)
    left = put(model, weights, processes)
    assert not left, f"nothing fills {', '.join(left)}"


@torch.no_grad()
def put(
    model: CausalModel, weights: Iterable[tuple[str, RowReader]], processes: Processes = ALONE
) -> set[str]:
    """Set some weights of a model, each process its rows; return the names of all others."""
    places = placed(model.weights(), model, processes)
    for name, rows in weights:
        place = places.pop(name)
        mine = held_rows(place)
        if mine.start < mine.stop:
            local(place).copy_(rows(mine))
    return set(places)


def _take_memory(model: nn.Module) -> None:
    """Give every tensor of an outline memory on the default device, with anything in it."""
    device = torch.get_default_device()
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # tied weights stay one parameter
    try:
        model._apply(  # type: ignore[no-untyped-call]  # as to_empty, which would empty tables as well
            lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor
        )
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
