"""Tensors in files, as safetensors and never as pickle, with errors that the rest of the trainer knows."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moe_trainer.storage.manifest import corrupt


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a new file; a full disk is an OSError as with any other file."""
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        if f"os error {errno.ENOSPC}" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file; raises JobError (ArtefactCorrupt) if it is none."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise corrupt(path.parent, f"{path.name}: {error}") from None
