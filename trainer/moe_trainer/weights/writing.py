"""Tensors written one after the other, so that no process has to hold all of them. Never pickle.

    Stream            tensors for files, each made of a model's when its turn comes
    save_each(path, …)  a file of tensors that come one by one: bit for bit what tensors.save_tensors writes

The tensors of a model that is spread over processes are gathered one by one (parallel/gathering.py): the process that
writes has the whole of one, beside its own part of all.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from moe_trainer.weights.reading import DTYPES

Form = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
#: The order of types in a safetensors file, which is that of their alignment.
_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "BOOL")


@dataclass(frozen=True)
class Stream:
    """Tensors for files.

    Attributes:
        groups: tensors of a model by name, those together of which tensors for the files are made.
        form: what makes them of a group whose tensors are whole.
        whole: what makes a tensor whole; by default it is.

    """

    groups: Sequence[Mapping[str, Tensor]]
    form: Form
    whole: Callable[[Tensor], Tensor] = Tensor.detach

    def outline(self) -> dict[str, Tensor]:
        """Return names, shapes and types in the order in which the tensors come; they take no memory."""
        return {name: tensor for group in self.outlines() for name, tensor in group.items()}

    def outlines(self) -> Iterator[Mapping[str, Tensor]]:
        """Return the same by the group of which the tensors are made."""
        for group in self.groups:
            yield self.form({key: _outlined(tensor) for key, tensor in group.items()})

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Make one group after the other."""
        for group in self.groups:
            whole = {name: self.whole(tensor).detach().cpu() for name, tensor in group.items()}
            yield from self.form(whole).items()

    def take_part(self) -> None:
        """Help another process, which goes through the same stream, to have each tensor whole."""
        for group in self.groups:
            for tensor in group.values():
                self.whole(tensor)


def save_each(path: Path, outline: Mapping[str, Tensor], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write tensors to a new file as they come, in any order; ``outline`` has all names, shapes and types."""
    header, starts = _header(outline)
    with path.open("wb") as file:
        file.write(header)
        for name, tensor in tensors:
            expected = outline[name]
            assert tensor.shape == expected.shape and tensor.dtype == expected.dtype, name
            file.seek(starts.pop(name))
            file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    assert not starts, f"{', '.join(starts)} did not come"


def _header(outline: Mapping[str, Tensor]) -> tuple[bytes, dict[str, int]]:
    """Return the first bytes of a file, and where in it each tensor begins."""
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
