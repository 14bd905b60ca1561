"""The device that everything is computed on: the accelerator if torch finds one, else the CPU. Imports torch."""

import ctypes
import sys
from typing import Literal

import torch
from torch import nn

#: Scores of different device classes are not mixed, since they round differently.
DeviceClass = Literal["cpu", "cuda"]


def use_device(threads: int = 1) -> DeviceClass:
    """Make the accelerator, if there is one, torch's default device; otherwise compute with ``threads`` CPU threads.

    A process works on one device only, so nothing else has to name it. On a CPU, freed memory is kept for the next
    step.
    """
    if torch.cuda.is_available():
        torch.set_default_device("cuda")
        return "cuda"
    torch.set_num_threads(threads)
    keep_freed_memory()
    return "cpu"


def follow(model: nn.Module) -> None:
    """Make the model's device the default of this thread: torch has a default for each thread."""
    device = next(model.parameters()).device
    if device.type != "cpu":
        torch.set_default_device(device)


#: Parameters of glibc's ``mallopt`` (malloc.h).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
#: Bytes at the top of the heap that are kept when they are freed.
KEEP = 1 << 30


def keep_freed_memory() -> bool:
    """Keep freed memory for reuse instead of giving it back to the system; return whether that was possible.

    A training step on a CPU frees and takes the same buffers over and over. By default glibc maps each large one anew,
    and the kernel then zeroes every page of it. With this setting resident memory stays near its peak until the
    process ends. Only glibc has it; elsewhere nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):  # musl, for example
        return False
    return bool(library.mallopt(M_MMAP_MAX, 0) and library.mallopt(M_TRIM_THRESHOLD, KEEP))
