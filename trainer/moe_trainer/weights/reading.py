"""Reads safetensors files in parts: one file, or shards with an index. Never pickle.

    read_headers(folder) -> {name: Stored}         which tensors the files hold, and where
    read_rows(folder, stored, rows) -> Tensor      some rows of one tensor; no other byte is read
    load_tensors(path) -> {name: Tensor}           all tensors of one file

Headers are checked before anything is read by them, so that a damaged folder gives an error that names the cause. The
reason is BaseUnfit if the folder is a checkpoint that was copied from outside, and else ArtefactCorrupt.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from moe_trainer import limits, untrusted
from moe_trainer.storage.manifest import unfit
from moe_trainer.untrusted import failing_as
from moe_trainer.weights import safetensors_header
from moe_trainer.weights.safetensors_header import HeaderError

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

#: Returns some rows (of the first dimension) of a tensor that lies elsewhere as a whole, for example on disk.
RowReader = Callable[[slice], Tensor]

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Stored:
    """What a header says about one tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    file: str
    start: int  #: Where its bytes begin in the file.


def read_headers(folder: Path) -> dict[str, Stored]:
    """Return the tensors in the safetensors files of a folder, by name.

    Raises JobError (ArtefactCorrupt or BaseUnfit) that names the file if there are no safetensors, one is truncated or has a
    wrong header, or the index and its shards do not fit together.
    """
    if not (folder / INDEX).exists():
        if not (folder / WHOLE).exists():
            raise _no_weights(folder)
        return read_header(folder, WHOLE)
    places = _index(folder)
    found: dict[str, Stored] = {}
    for name in sorted(set(places.values())):
        for tensor, stored in read_header(folder, name).items():
            if places.get(tensor) != name:
                raise unfit(
                    folder,
                    f"{name} holds {tensor}, which belongs in {places.get(tensor)} according to {INDEX}",
                )
            found[tensor] = stored
        if len(found) > limits.TENSORS:
            raise unfit(folder, f"its files hold more than {limits.TENSORS:,} tensors, which is the limit")
    missing = sorted(places.keys() - found.keys())
    if missing:
        raise unfit(folder, f"{places[missing[0]]} lacks {missing[0]}, which {INDEX} says it holds")
    return found


def read_header(folder: Path, name: str) -> dict[str, Stored]:
    """Return the tensors of one file of a folder; raises JobError (ArtefactCorrupt or BaseUnfit)."""
    try:
        entries = safetensors_header.read(folder / name)
    except HeaderError as error:
        raise unfit(folder, str(error)) from None
    return {
        tensor: Stored(DTYPES[entry.dtype], entry.shape, name, entry.start)
        for tensor, entry in entries.items()
    }


def read_rows(folder: Path, stored: Stored, rows: slice = slice(None)) -> Tensor:
    """Return some rows of a stored tensor, in the host's memory; all of them by default.

    Raises JobError (ArtefactCorrupt or BaseUnfit) if the file is shorter than its header says.
    """
    shape = list(stored.shape)
    first = 0
    if shape:
        first, last, _ = rows.indices(shape[0])
        shape[0] = last - first
    tensor = torch.empty(shape, dtype=stored.dtype, device="cpu")
    into = tensor.flatten().view(torch.uint8).numpy().data
    with (folder / stored.file).open("rb") as file:
        file.seek(stored.start + first * math.prod(shape[1:]) * stored.dtype.itemsize)
        if file.readinto(into) != into.nbytes:
            raise unfit(folder, f"{stored.file} ends within a tensor")
    return tensor


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of one file; raises JobError (ArtefactCorrupt or BaseUnfit) if it is not a safetensors file."""
    with failing_as(lambda what: unfit(path.parent, f"{path.name}: {what}")):
        return load_file(path)


def check(
    folder: Path,
    found: Mapping[str, Stored | Tensor],
    expected: Mapping[str, Tensor],
    config: str = "config.json",
) -> None:
    """Raise JobError (ArtefactCorrupt or BaseUnfit) naming the tensors that are missing, unexpected or of the wrong shape.

    ``config`` is the file that determines which tensors there should be.
    """
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing:
        raise unfit(folder, f"its {config} asks for {_some(missing)}, which its weights lack")
    if extra:
        raise unfit(folder, f"its weights hold {_some(extra)}, for which its {config} has no place")
    for name, tensor in expected.items():
        if tuple(found[name].shape) != tuple(tensor.shape):
            raise unfit(
                folder,
                f"{name} has shape {list(found[name].shape)}, not {list(tensor.shape)} of its {config}",
            )
        if tensor.is_floating_point() and not found[name].dtype.is_floating_point:
            raise unfit(
                folder, f"{name} holds {found[name].dtype}, as quantized weights do: convert them first"
            )


def _index(folder: Path) -> dict[str, str]:
    """Return the file of each tensor."""
    try:
        places = untrusted.parse(untrusted.read(folder / INDEX, limits.INDEX_BYTES))["weight_map"]
        items = {str(name): str(file) for name, file in places.items()}
    except untrusted.LimitExceeded as error:
        raise unfit(folder, f"{INDEX}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise unfit(folder, f"{INDEX} is not JSON with a weight_map of names to files") from None
    if len(items) > limits.TENSORS:
        raise unfit(folder, f"{INDEX} lists {len(items):,} tensors; the limit is {limits.TENSORS:,}")
    for file in set(items.values()):
        if "/" in file or not file.endswith(".safetensors"):
            raise unfit(folder, f"{INDEX} names {file!r:.100}, which is not a .safetensors file next to it")
        if not (folder / file).is_file():
            raise unfit(folder, f"{file} is missing, which {INDEX} names")
    return items


def _no_weights(folder: Path) -> Exception:
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        return unfit(
            folder,
            f"its weights are pickled ({_some(pickles)}), which can run any code when they are read: convert them "
            f"to safetensors",
        )
    return unfit(folder, f"it has neither {WHOLE} nor {INDEX}")


def _some(names: list[str]) -> str:
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")
