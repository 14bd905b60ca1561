"""How much text may be made from the bytes of a source.

Compressed data, dictionaries in parquet and repeated system messages can make a lot of text from few bytes. So
everything that is made is counted against what was read, over all files of a source: a million small files gain no
more than a large one.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager

from moe_formats.failure import JobError
from moe_trainer import limits
from moe_trainer.sources.faults import FaultyFileError
from moe_trainer.sources.files import File


class Budget:
    """The bytes that were read from a source so far, and those that were made from them."""

    def __init__(self) -> None:
        self._read = 0
        self._made = 0

    def read(self, size: int) -> None:
        """Count bytes that were read from a file."""
        self._read += size

    def make(self, size: int) -> None:
        """Count bytes that were made; raises FaultyFileError if they are far more than real text has."""
        self._made += size
        if self._made > limits.UNPACKED_FREE_BYTES + limits.UNPACKED_RATIO * self._read:
            raise FaultyFileError(
                f"unpacks to too much: the {self._read} bytes read so far became {self._made}, but beyond "
                f"{limits.UNPACKED_FREE_BYTES} they may become {limits.UNPACKED_RATIO} times as many at most. Remove what "
                "repeats, or put the text there uncompressed."
            )


class Counted(io.RawIOBase):
    """A raw stream whose bytes are counted as they are read."""

    def __init__(self, raw: io.RawIOBase, budget: Budget) -> None:
        self._raw = raw
        self._budget = budget

    def readable(self) -> bool:
        """Return True: it is read, and nothing else."""
        return True

    def readinto(self, buffer: "memoryview") -> int | None:  # type: ignore[override]
        """Read into a buffer, and count what was read."""
        size: int | None = self._raw.readinto(buffer)
        self._budget.read(size or 0)
        return size


@contextmanager
def faults_of(file: File) -> Iterator[None]:
    """Turn a FaultyFileError into a JobError (DataUnreadable) that names the file."""
    try:
        yield
    except FaultyFileError as fault:
        raise JobError("DataUnreadable", f"{file} {fault}") from None
