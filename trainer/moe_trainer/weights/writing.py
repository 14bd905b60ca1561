"""Writes tensors to safetensors files one by one, so that no process has to hold all of them. Never pickle.

    TensorStream               tensors for files, each made from the model's tensors when its turn comes
    save_each(path, …)         one file; bit for bit what save_tensors writes
    save_sharded(folder, …)    one file, or shards with an index, as Hugging Face has it
    save_tensors(path, …)      one file from tensors that are all in memory

The tensors of a model that is spread over processes are gathered one by one (parallel/gathering.py): the process that
writes holds one whole tensor at a time, besides its own part of the model.
"""

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from moe_trainer.storage.files import write_file
from moe_trainer.weights.reading import DTYPES, INDEX, WHOLE

Form = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
#: The order of types in a safetensors file, which is that of their alignment.
_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")


@dataclass(frozen=True)
class TensorStream:
    """Tensors for files.

    Attributes:
        groups: the model's tensors by name; from each group one or more tensors for the files are made.
        form: makes the tensors for the files from a group of whole tensors.
        whole: makes a tensor whole; by default it is whole already.

    """

    groups: Sequence[Mapping[str, Tensor]]
    form: Form
    whole: Callable[[Tensor], Tensor] = Tensor.detach

    def outline(self) -> dict[str, Tensor]:
        """Return tensors without memory that have the names, shapes and types of those to come, in their order."""
        return {name: tensor for group in self.outlines() for name, tensor in group.items()}

    def outlines(self) -> Iterator[Mapping[str, Tensor]]:
        """Yield the same for one group after the other."""
        for group in self.groups:
            yield self.form({key: _outlined(tensor) for key, tensor in group.items()})

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and tensors, made one group after the other."""
        for group in self.groups:
            whole = {name: self.whole(tensor).detach().cpu() for name, tensor in group.items()}
            yield from self.form(whole).items()

    def take_part(self) -> None:
        """Take part in making each tensor whole for another process, which goes through the same stream."""
        for group in self.groups:
            for tensor in group.values():
                self.whole(tensor)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors that are all in memory to a file; a full disk is an OSError, as with any other file.

    The library writes to a new file with a random name, which then takes the place of whatever lies at ``path``.
    """
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        if f"os error {errno.ENOSPC}" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise


def save_each(path: Path, outline: Mapping[str, Tensor], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write tensors to a new file as they come, in any order; ``outline`` gives all names, shapes and types."""
    header, starts = _header(outline)
    with path.open("xb") as file:
        file.write(header)
        for name, tensor in tensors:
            expected = outline[name]
            assert tensor.shape == expected.shape and tensor.dtype == expected.dtype, name
            file.seek(starts.pop(name))
            file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    assert not starts, f"{', '.join(starts)} did not come"


def _header(outline: Mapping[str, Tensor]) -> tuple[bytes, dict[str, int]]:
    """Return the file's header, and where in the file each tensor begins."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end, starts = 0, {}
    for name in sorted(outline, key=lambda name: (_ORDER.index(_NAMES[outline[name].dtype]), name)):
        tensor = outline[name]
        starts[name], end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [starts[name], end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {name: begin + start for name, start in starts.items()}


def _outlined(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


#: Bytes of a shard; a single tensor that is larger has a shard of its own.
SHARD_BYTES = 5 * 10**9


def save_sharded(
    folder: Path,
    tensors: TensorStream,
    dtypes: Mapping[str, torch.dtype],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write tensors in the types in which they were stored, in shards with an index if they need several.

    A tensor that was not trained is written with the bytes that were read: single precision can represent every
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
        write_file(folder / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")


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
