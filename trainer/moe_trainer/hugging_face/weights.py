"""Tensors of a Hugging Face directory: safetensors, in one file or in shards with an index. Never pickle.

What a file says that it holds is read first, from its header alone, and compared with what the network
needs; so a directory that does not fit is refused before its tensors are read.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from moe_trainer.manifest import corrupt
from moe_trainer.tensors import save_tensors

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

#: Bytes of a shard; a single tensor that is larger has a shard of its own.
SHARD_BYTES = 5 * 10**9
#: Bytes of a header at most, as safetensors has it: hundreds of thousands of tensors take less.
HEADER_BYTES = 100_000_000

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "BOOL": torch.bool,
}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Stored:
    """What a header says about one tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]


def read_headers(folder: Path) -> dict[str, Stored]:
    """Return what the weights of a folder consist of, by name.

    Raises JobError (ArtefactCorrupt) that names the file: if there are no safetensors, one is truncated or
    has a header that cannot be, or the index and its shards do not fit together.
    """
    if not (folder / INDEX).exists():
        if not (folder / WHOLE).exists():
            raise _no_weights(folder)
        return _header(folder, WHOLE)
    places = _index(folder)
    found: dict[str, Stored] = {}
    for name in sorted(set(places.values())):
        for tensor, stored in _header(folder, name).items():
            if places.get(tensor) != name:
                raise corrupt(folder, f"{name} holds {tensor}, which {INDEX} has in {places.get(tensor)}")
            found[tensor] = stored
    missing = sorted(places.keys() - found.keys())
    if missing:
        raise corrupt(folder, f"{places[missing[0]]} lacks {missing[0]}, which {INDEX} says it holds")
    return found


def check(folder: Path, found: Mapping[str, Stored], expected: Mapping[str, Tensor]) -> None:
    """Raise JobError (ArtefactCorrupt) that names tensors which are missing, left over or misshapen."""
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing:
        raise corrupt(folder, f"its config.json asks for {_some(missing)}, which its weights lack")
    if extra:
        raise corrupt(folder, f"its weights hold {_some(extra)}, for which its config.json has no place")
    for name, tensor in expected.items():
        if found[name].shape != tuple(tensor.shape):
            raise corrupt(
                folder,
                f"{name} has shape {list(found[name].shape)}, not {list(tensor.shape)} of its config.json",
            )


def write(
    folder: Path,
    tensors: Mapping[str, Tensor],
    dtypes: Mapping[str, torch.dtype],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write tensors in the types in which they were stored, in shards with an index if they need several.

    A tensor that was not trained since it was read is the same bytes again: single precision holds every
    number of the 16-bit types.
    """
    typed = {name: dtypes.get(name, tensor.dtype) for name, tensor in tensors.items()}
    sizes = {name: tensor.numel() * typed[name].itemsize for name, tensor in tensors.items()}
    shards = _shards(sizes, shard_bytes)
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = WHOLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_tensors(folder / file, {name: _at_rest(tensors[name], typed[name]) for name in names})
        places |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _at_rest(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype).contiguous()


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


def _index(folder: Path) -> dict[str, str]:
    """Return the file of each tensor."""
    try:
        places = json.loads((folder / INDEX).read_bytes())["weight_map"]
        items = {str(name): str(file) for name, file in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise corrupt(folder, f"{INDEX} is no JSON with a weight_map of names to files") from None
    for file in set(items.values()):
        if "/" in file or not file.endswith(".safetensors"):
            raise corrupt(folder, f"{INDEX} names {file!r}, which is no .safetensors file beside it")
        if not (folder / file).is_file():
            raise corrupt(folder, f"{file} is missing, which {INDEX} names")
    return items


def _header(folder: Path, name: str) -> dict[str, Stored]:
    path = folder / name
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER_BYTES):
            raise corrupt(
                folder,
                f"{name} is no safetensors file: it says that its header has {length} bytes, of {size} in all",
            )
        text = file.read(length)
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        return {tensor: _stored(entry, size - 8 - length) for tensor, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise corrupt(folder, f"the header of {name} cannot be read: {error}") from None


def _stored(entry: Mapping[str, object], data_bytes: int) -> Stored:
    """Return one tensor of a header; raises ValueError if it cannot lie where the header says."""
    name, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if name not in _DTYPES:
        raise ValueError(f"dtype {name!r} is none of {', '.join(_DTYPES)}: convert quantized weights first")
    if not (isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2):
        raise ValueError("a tensor has no shape and two offsets")
    dtype = _DTYPES[str(name)]
    if any(not isinstance(number, int) or number < 0 for number in (*shape, *offsets)):
        raise ValueError("a shape or an offset is no natural number")
    if offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize or offsets[1] > data_bytes:
        raise ValueError(f"a tensor of shape {shape} lies at {offsets}, in {data_bytes} bytes")
    return Stored(dtype, tuple(shape))


def _no_weights(folder: Path) -> Exception:
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        return corrupt(
            folder,
            f"its weights are pickled ({_some(pickles)}), which can run any code when they are read: convert them "
            f"to safetensors",
        )
    return corrupt(folder, f"it has neither {WHOLE} nor {INDEX}")


def _some(names: list[str]) -> str:
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")
