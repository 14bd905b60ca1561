"""Compressed files, recognised by the end of their name: gzip, bzip2, xz (standard library), Zstandard (pyarrow).

They are decompressed while they are read, in bounded memory, and what they unpack to is counted (budget.py).
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, Protocol

from moe_trainer import limits
from moe_trainer.sources.budget import Budget, Counted
from moe_trainer.sources.faults import FaultyFileError

#: Bytes that are read and decompressed at a time.
BUFFER_BYTES = 1024 * 1024

#: Bytes that a decompressor is given at first, and at most. What it leaves of them is copied, so that a file of very many
#: tiny members would take long if each were given much.
_FIRST_FED, _MOST_FED = 256, 64 * 1024

#: What is wrong with a file that goes on after its end.
_FOLLOWS = "bytes that are not compressed follow the end of its last compressed stream"

#: How liblzma says that a stream needs more memory than it may take.
_MEMORY_LIMIT = "Memory usage limit exceeded"


class ByteStream(Protocol):
    """A source of bytes, such as a decompressor."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; none at the end."""
        ...


class DamagedError(FaultyFileError):
    """Compressed data ends too early, is not compressed as the file's name says, or has something else after its end."""

    def __init__(self, what: object) -> None:
        super().__init__(
            f"is cut short, or not compressed as its name says: {what}. Put the whole file there, and nothing after it."
        )


class Member(Protocol):
    """A decompressor of one compressed stream; a file may have several, one after the other."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether more can only be decompressed from more input."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What was given after the end of the stream."""
        ...

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most ``max_length`` bytes."""
        ...


def without_compression(path: str) -> str:
    """Return a path without the ending that says how it is compressed: ``a.jsonl`` for ``a.jsonl.gz``."""
    name = PurePosixPath(path)
    return str(name.with_suffix("")) if name.suffix.lower() in _OPENERS else path


def decompressed(raw: io.RawIOBase, path: str, budget: Budget | None = None) -> io.BufferedIOBase:
    """Return a stream of a file's decompressed bytes; unchanged if its name does not end like a compressed file's.

    Reading it raises DamagedError if the file is cut short or is not what its name says, and FaultyFileError if
    unpacking it takes too much memory, or if it unpacks to more than the source's budget allows.
    """
    budget = budget or Budget()
    buffered = io.BufferedReader(Counted(raw, budget), BUFFER_BYTES)
    opener = _OPENERS.get(PurePosixPath(path).suffix.lower())
    return io.BufferedReader(_Decompressed(opener(buffered), budget), BUFFER_BYTES) if opener else buffered


class _Decompressed(io.RawIOBase):
    """Gives all decompressors the same interface, the same errors and the same bounds."""

    def __init__(self, stream: ByteStream, budget: Budget) -> None:
        self._stream = stream
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        try:
            data = self._stream.read(len(buffer))
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise _fault(error) from None
        except OSError as error:
            if error.errno is not None:  # an error of the disk, not of the decompressor
                raise
            raise _fault(error) from None
        self._budget.make(len(data))
        buffer[: len(data)] = data
        return len(data)


def _fault(error: Exception) -> FaultyFileError:
    if _MEMORY_LIMIT in str(error) or "requires too much memory" in str(error):  # liblzma, libzstd
        return FaultyFileError(
            f"needs too much memory to be unpacked ({error}): {limits.UNPACKING_MEMORY_BYTES} bytes are allowed for xz, and "
            "windows of 134217728 bytes for zst. Compress it with a smaller dictionary: xz -9 and zstd -19 take less."
        )
    return DamagedError(error)


class _Members:
    """Decompresses a file that consists of members, one after the other.

    With errors in ``wrong``, by which a decompressor says that something is no member, the file has at least one. Without,
    as in gzip, it may have no member at all. Between members and at the end may be zeros, in multiples of ``padding`` bytes;
    anything else after the last member is an error.
    """

    def __init__(
        self,
        stream: io.BufferedReader,
        start: Callable[[], Member],
        *wrong: type[Exception],
        padding: int,
    ) -> None:
        self._stream = stream
        self._start = start
        self._wrong = wrong
        self._padding = padding
        self._held, self._at = b"", 0  # what was read, and how much of it a member has taken
        self._fed = _FIRST_FED
        self._members = 0
        self._member: Member | None = None

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes; none at the end."""
        while member := self._member or self._next_member():
            try:
                data = member.decompress(self._input() if member.needs_input else b"", size)
            except self._wrong as error:
                if self._members == 1 or self._fed > 4 * _FIRST_FED or _MEMORY_LIMIT in str(error):
                    raise
                raise EOFError(_FOLLOWS) from None
            if member.eof:
                self._at -= len(member.unused_data)
                self._member = None
            if data:
                return data
        return b""

    def _next_member(self) -> Member | None:
        if self._members and self._pass_zeros() % self._padding:
            if not self._fill():
                raise EOFError(f"the zeros at its end are not a multiple of {self._padding} bytes")
            raise EOFError(_FOLLOWS)
        self._fed = _FIRST_FED
        if self._fill() or (self._wrong and not self._members):
            self._members += 1
            self._member = self._start()
        return self._member

    def _pass_zeros(self) -> int:
        """Pass over zeros, and return how many there were."""
        passed = 0
        while self._fill() and not self._held[self._at]:
            held = self._held[self._at :]
            self._held, self._at = held.lstrip(b"\0"), 0
            passed += len(held) - len(self._held)
        return passed

    def _input(self) -> bytes:
        if not self._fill():
            raise EOFError("it ends before the end of the compressed stream")
        data = self._held[self._at : self._at + self._fed]
        self._at += len(data)
        self._fed = min(4 * self._fed, _MOST_FED)
        return data

    def _fill(self) -> bool:
        """Return whether there is anything left to give to a member."""
        if self._at >= len(self._held):
            self._held, self._at = self._stream.read(_MOST_FED), 0
        return len(self._held) > 0


class _Gzip:
    """A member of a gzip file, with the interface of the other decompressors."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=limits.UNPACKING_MEMORY_BYTES)


def _zstandard(stream: io.BufferedReader) -> ByteStream:
    import pyarrow  # importing it takes a quarter of a second

    opened: ByteStream = pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), "zstd")
    return opened


_OPENERS: dict[str, Callable[[Any], ByteStream]] = {
    ".gz": lambda stream: _Members(stream, _Gzip, padding=1),
    ".bz2": lambda stream: _Members(stream, bz2.BZ2Decompressor, OSError, padding=1),
    ".xz": lambda stream: _Members(stream, _xz, lzma.LZMAError, padding=4),
    ".zst": _zstandard,
}
