"""The header of a safetensors file, checked before anything is read by it. Imports no torch."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_trainer import limits
from moe_trainer.untrusted import parse

#: Bytes of a number, by the name of its type.
SIZES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


class HeaderError(Exception):
    """A header is wrong; the message names the file and says why."""


@dataclass(frozen=True)
class TensorEntry:
    """What a header says about one tensor."""

    dtype: str
    shape: tuple[int, ...]
    start: int  #: Where its bytes begin in the file.

    @property
    def end(self) -> int:
        """Where its bytes end in the file."""
        return self.start + math.prod(self.shape) * SIZES[self.dtype]


def read(path: Path) -> dict[str, TensorEntry]:
    """Return the tensors of a file by name; raises HeaderError, also if the file is too short for its header.

    Each byte after the header belongs to exactly one tensor, so a file never takes more memory than its size.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, limits.HEADER_BYTES):
            raise HeaderError(
                f"{path.name} is not a safetensors file: it says that its header has {length} bytes, of {size} in all "
                f"(the limit is {limits.HEADER_BYTES:,})"
            )
        text = file.read(length)
    try:
        entries = parse(text)
        entries.pop("__metadata__", None)
        if len(entries) > limits.TENSORS:
            raise ValueError(f"it lists {len(entries):,} tensors; the limit is {limits.TENSORS:,}")
        found = {_name(name): _entry(entry, 8 + length, size) for name, entry in entries.items()}
        _check_places(found.values(), 8 + length, size)
        return found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HeaderError(f"the header of {path.name} cannot be read: {error}") from None


def _name(name: str) -> str:
    if len(name) > limits.TENSOR_NAME_CHARACTERS:
        raise ValueError(
            f"the name of tensor {name[:40]!r}… has {len(name):,} characters; the limit is "
            f"{limits.TENSOR_NAME_CHARACTERS}"
        )
    return name


def _entry(entry: Mapping[str, object], begin: int, size: int) -> TensorEntry:
    """Return one tensor of a header; raises ValueError if the tensor cannot lie where the header says."""
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in SIZES:
        raise ValueError(
            f"dtype {dtype!r:.40} is not one of {', '.join(SIZES)}: convert quantized weights first"
        )
    if not (isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2):
        raise ValueError("a tensor has no shape and two offsets")
    if len(shape) > limits.DIMENSIONS:
        raise ValueError(f"a tensor has {len(shape):,} dimensions; the limit is {limits.DIMENSIONS}")
    if any(type(number) is not int or number < 0 for number in (*shape, *offsets)):
        raise ValueError("a shape or an offset is not a natural number")
    if offsets[1] - offsets[0] != math.prod(shape) * SIZES[str(dtype)] or offsets[1] > size - begin:
        raise ValueError(f"a tensor of shape {shape} lies at {offsets}, in {size - begin} bytes")
    return TensorEntry(str(dtype), tuple(shape), begin + offsets[0])


def _check_places(entries: Iterable[TensorEntry], begin: int, size: int) -> None:
    """Raise ValueError unless the tensors fill the file without overlap, as safetensors itself demands."""
    end = begin
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.end)):
        if entry.start != end:
            raise ValueError(
                f"a tensor begins at byte {entry.start - begin}, not where the one before it ends ({end - begin})"
            )
        end = entry.end
    if end != size:
        raise ValueError(f"{size - end} bytes after the last tensor belong to none")
