"""How the C library keeps memory that is freed. Imports nothing heavy."""

import ctypes
import sys

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
