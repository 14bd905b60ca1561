"""Compressed files, recognised by the end of their name: gzip, bzip2, xz (standard library), Zstandard (pyarrow)."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, Protocol

#: Bytes that are read and decompressed at a time.
BUFFER_BYTES = 1024 * 1024


class ByteStream(Protocol):
    """A source of bytes, such as a decompressor."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; none at the end."""
        ...


class DamagedError(Exception):
    """Compressed data ends too early, or is not compressed as the file's name says."""


def without_compression(path: str) -> str:
    """Return a path without the ending that says how it is compressed: ``a.jsonl`` for ``a.jsonl.gz``."""
    name = PurePosixPath(path)
    return str(name.with_suffix("")) if name.suffix in _OPENERS else path


def decompressed(raw: io.RawIOBase, path: str) -> io.BufferedIOBase:
    """Return a stream of a file's decompressed bytes; unchanged if its name does not end like a compressed file's.

    Reading it raises DamagedError if the file is cut short or is not what its name says.
    """
    buffered = io.BufferedReader(raw, BUFFER_BYTES)
    opener = _OPENERS.get(PurePosixPath(path).suffix)
    return io.BufferedReader(_Decompressed(opener(buffered)), BUFFER_BYTES) if opener else buffered


class _Decompressed(io.RawIOBase):
    """Gives all decompressors the same interface and the same error."""

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
            if error.errno is not None:  # an error of the disk, not of the decompressor
                raise
            raise DamagedError(str(error)) from None
        buffer[: len(data)] = data
        return len(data)


def _zstandard(stream: io.BufferedReader) -> ByteStream:
    import pyarrow  # importing it takes a quarter of a second

    opened: ByteStream = pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), "zstd")
    return opened


_OPENERS: dict[str, Callable[[Any], ByteStream]] = {
    ".gz": lambda stream: gzip.GzipFile(fileobj=stream),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _zstandard,
}
