"""Where tensors live: on the accelerator, if torch finds one, else on the CPU. Imports torch."""

import ctypes
import sys
from typing import Literal

import torch
from torch import nn

#: Scores of one device class are not mixed with another's: rounding differs.
DeviceClass = Literal["cpu", "cuda"]


def use_device(threads: int = 1) -> DeviceClass:
    """Make the accelerator the default of everything that follows; on a CPU, compute with ``threads``.

    A whole process works on one device, so nothing else has to name it. On a CPU, memory that is freed is
    kept for the next step.
    """
    if torch.cuda.is_available():
        torch.set_default_device("cuda")
        return "cuda"
    torch.set_num_threads(threads)
    keep_freed_memory()
    return "cpu"


def follow(model: nn.Module) -> None:
    """Make the model's device the default of this thread: torch keeps the default by thread."""
    device = next(model.parameters()).device
    if device.type != "cpu":
        torch.set_default_device(device)


#: Parameters of glibc's ``mallopt`` (malloc.h).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
#: Bytes at the top of the heap that are kept when they are freed.
KEEP = 1 << 30


def keep_freed_memory() -> bool:
    """Let freed memory be used again instead of going back to the system; return whether that was possible.

    A step of training on a CPU frees and takes the same buffers over and over. By default glibc maps each
    large one anew, and the kernel then zeroes every page of it on first touch.
    Resident memory stays near its peak until the process ends. Only glibc knows these settings;
    elsewhere nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):  # musl, for example
        return False
    return bool(library.mallopt(M_MMAP_MAX, 0) and library.mallopt(M_TRIM_THRESHOLD, KEEP))
