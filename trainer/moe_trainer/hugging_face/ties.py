"""Weights that a network uses in several places, tied as transformers ties them when it loads a checkpoint.

The config says which weights are one; what the checkpoint holds decides:

    one of them is stored                 it is all of them, whichever name it has
    several, with the same numbers        they are tied, and one is kept
    several, with different numbers       each is a weight of its own, and is trained and written as one
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from moe_trainer.hugging_face.conversion import Place
from moe_trainer.weights.reading import RowReader

#: Rows that are compared at a time.
_ROWS = 4096


def settle(
    network: PreTrainedModel, found: Mapping[str, Place], same: Callable[[str, str], bool]
) -> dict[str, Place]:
    """Untie what a checkpoint holds several times with different numbers; return the places of what is left to read.

    ``same`` returns whether two tensors on disk hold the same numbers. A weight that is stored under the name of
    another to which it is tied gets the place of that one.
    """
    on_disk = {place.target: name for name, place in found.items() if place.converter is None}
    left = dict(found)
    for name, source in list(network.all_tied_weights_keys.items()):
        if name not in on_disk:
            continue
        mine = on_disk[name]
        if source not in on_disk:
            left[mine], on_disk[source] = Place(source), mine
        elif same(mine, on_disk[source]):
            del left[mine]
        else:
            _untie(network, name)
    return left


def equal(one: RowReader, other: RowReader, rows: int) -> bool:
    """Return whether two tensors with ``rows`` rows hold the same numbers in single precision."""
    return all(
        torch.equal(one(part).float(), other(part).float())
        for part in (slice(start, start + _ROWS) for start in range(0, rows, _ROWS))
    )


def _untie(network: PreTrainedModel, name: str) -> None:
    """Give a place of a network without memory a weight of its own."""
    del network.all_tied_weights_keys[name]
    place, _, last = name.rpartition(".")
    module = network.get_submodule(place)
    shared = getattr(module, last)
    own = torch.empty_like(shared)
    setattr(module, last, nn.Parameter(own) if isinstance(shared, nn.Parameter) else own)
