"""Weights of a Hugging Face directory as they are written: in one file, or in shards with an index (shards.py)."""

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import torch

from moe_trainer.weights.reading import INDEX, WHOLE
from moe_trainer.weights.writing import Stream, save_each

#: Bytes of a shard; a single tensor that is larger has a shard of its own.
SHARD_BYTES = 5 * 10**9


def write(
    folder: Path,
    tensors: Stream,
    dtypes: Mapping[str, torch.dtype],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write tensors in the types in which they were stored, in shards with an index if they need several.

    A tensor that was not trained since it was read is the same bytes again: single precision holds every
    number of the 16-bit types.
    """
    outline = {name: tensor.to(dtypes.get(name, tensor.dtype)) for name, tensor in tensors.outline().items()}
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in outline.items()}
    shards = _shards(sizes, shard_bytes)
    coming = iter(tensors)
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = WHOLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        typed = ((name, tensor.to(outline[name].dtype)) for name, tensor in islice(coming, len(names)))
        save_each(folder / file, {name: outline[name] for name in names}, typed)
        places |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Return the names in order, cut so that no shard is larger than the limit, unless one tensor is."""
    shards: list[list[str]] = [[]]
    room = limit
    for name, size in sizes.items():
        if shards[-1] and size > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= size
    return shards
