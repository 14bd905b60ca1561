"""The header of a safetensors file, checked before anything is read by it. Imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_formats.format import parse_json

#: Most bytes of a header, as in safetensors itself: hundreds of thousands of tensors take less.
HEADER_BYTES = 100_000_000

#: Bytes of a number, by the name of its type.
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "BOOL": 1}


class HeaderError(Exception):
    """A header is wrong; the message names the file and says why."""


@dataclass(frozen=True)
class TensorEntry:
    """What a header says about one tensor."""

    dtype: str
    shape: tuple[int, ...]
    start: int  #: Where its bytes begin in the file.


def read(path: Path) -> dict[str, TensorEntry]:
    """Return the tensors of a file by name; raises HeaderError, also if the file is too short for its header."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER_BYTES):
            raise HeaderError(
                f"{path.name} is not a safetensors file: it says that its header has {length} bytes, of {size} in all"
            )
        text = file.read(length)
    try:
        entries = parse_json(text)
        entries.pop("__metadata__", None)
        return {name: _entry(entry, 8 + length, size) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HeaderError(f"the header of {path.name} cannot be read: {error}") from None


def _entry(entry: Mapping[str, object], begin: int, size: int) -> TensorEntry:
    """Return one tensor of a header; raises ValueError if the tensor cannot lie where the header says."""
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in SIZES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(SIZES)}: convert quantized weights first")
    if not (isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2):
        raise ValueError("a tensor has no shape and two offsets")
    if any(not isinstance(number, int) or number < 0 for number in (*shape, *offsets)):
        raise ValueError("a shape or an offset is not a natural number")
    if offsets[1] - offsets[0] != math.prod(shape) * SIZES[str(dtype)] or offsets[1] > size - begin:
        raise ValueError(f"a tensor of shape {shape} lies at {offsets}, in {size - begin} bytes")
    return TensorEntry(str(dtype), tuple(shape), begin + offsets[0])
