"""Compressed files, by the end of their name: gzip, bzip2, xz (standard library) and Zstandard (pyarrow)."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, Protocol

#: Bytes that are read, and decompressed, at once.
BUFFER_BYTES = 1024 * 1024


class ByteStream(Protocol):
    """What can be read."""

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes; none at the end."""
        ...


class DamagedError(Exception):
    """Compressed data that ends too early, or is none."""


def without_compression(path: str) -> str:
    """Return a path without the ending that says how it is compressed: ``a.jsonl`` for ``a.jsonl.gz``."""
    name = PurePosixPath(path)
    return str(name.with_suffix("")) if name.suffix in _OPENERS else path


def decompressed(raw: io.RawIOBase, path: str) -> io.BufferedIOBase:
    """Return the stream of a file's bytes; as they are if its name says nothing of compression.

    Reading it raises DamagedError where the file is cut short or is not what its name says.
    """
    buffered = io.BufferedReader(raw, BUFFER_BYTES)
    opener = _OPENERS.get(PurePosixPath(path).suffix)
    return io.BufferedReader(_Decompressed(opener(buffered)), BUFFER_BYTES) if opener else buffered


class _Decompressed(io.RawIOBase):
    """One way to read, and one error, for all decompressors."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        try:
            data = self._stream.read(len(buffer))
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise DamagedError(str(error)) from None
        except OSError as error:
            if error.errno is not None:  # the disk's word, not the decompressor's
                raise
            raise DamagedError(str(error)) from None
        buffer[: len(data)] = data
        return len(data)


def _zstandard(stream: io.BufferedReader) -> ByteStream:
    import pyarrow  # takes a quarter of a second: only where it is needed

    opened: ByteStream = pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), "zstd")
    return opened


_OPENERS: dict[str, Callable[[Any], ByteStream]] = {
    ".gz": lambda stream: gzip.GzipFile(fileobj=stream),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _zstandard,
}
