"""The tensors of a run in safetensors files; each process writes what it holds. Never pickle.

A single process writes one plain file. Several processes write one file each, whose header says where its parts belong
in the whole (the Hugging Face format of torch.distributed.checkpoint). So any number of processes can read what any other
number wrote.
"""

import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from torch import Tensor

from moe_trainer.storage.manifest import corrupt
from moe_trainer.weights.reading import load_tensors
from moe_trainer.weights.writing import save_tensors

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_ALONE = "tensors.safetensors"
#: The key in a file's metadata under which torch.distributed.checkpoint says which part of each tensor it holds.
_PARTS = "DCP_SHARDING_INFO"


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], group: "ProcessGroup | None") -> None:
    """Write this process's parts to an existing folder; all processes of the group call it together."""
    if group is None:
        save_tensors(folder / _ALONE, tensors)
        return
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystem
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    class NewFiles(FileSystem):
        """Creates files, where torch would open whatever somebody put in their place, and wait for a pipe."""

        @contextmanager
        def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[io.IOBase]:
            with super().create_stream(path, mode.replace("w", "x")) as stream:
                yield stream

    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    writer.fs = NewFiles()
    try:
        save(dict(tensors), storage_writer=writer, process_group=group)
    except CheckpointException as error:  # an error in any of the processes, such as a full disk
        raise next((why for why, _ in error.failures.values() if isinstance(why, OSError)), error) from None


def read_tensors(folder: Path, into: Mapping[str, Tensor], group: "ProcessGroup | None") -> None:
    """Fill tensors, each with this process's part of the tensor in the folder with its name.

    Raises JobError (ArtefactCorrupt), before any is filled, if a name is missing or has another shape.
    """
    check_shapes(folder, into)
    if group is None and not _in_parts(folder):
        for name, tensor in load_tensors(folder / _ALONE).items():
            if name in into:
                into[name].copy_(tensor)
        return
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # it was told that it is alone
        load(dict(into), storage_reader=reader, process_group=group, no_dist=group is None)


def check_shapes(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Raise JobError (ArtefactCorrupt) unless the folder holds every name in its whole shape."""
    found = shapes(folder)
    for name, tensor in into.items():
        if found.get(name) != tuple(tensor.shape):
            raise corrupt(folder, f"{name} has shape {found.get(name)}, not {tuple(tensor.shape)}")


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the name and the whole shape of every tensor in a folder; raises JobError (ArtefactCorrupt)."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                parts = json.loads((file.metadata() or {}).get(_PARTS, "{}"))
                for name in file.keys():  # noqa: SIM118 (no mapping)
                    shape = file.get_slice(name).get_shape()
                    offsets = parts.get(name, {}).get("saved_offsets", [0] * len(shape))
                    end = tuple(size + offset for size, offset in zip(shape, offsets, strict=True))
                    found[name] = tuple(map(max, end, found.get(name, end)))
        except SafetensorError as error:
            raise corrupt(folder, f"{path.name}: {error}") from None
    return found


def _in_parts(folder: Path) -> bool:
    return not (folder / _ALONE).exists()
