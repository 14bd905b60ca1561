"""Reads the logs that supervisors write (shim.py): whole, from the end, since a time, and while they grow."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Line:
    """One line (or, if `partial`, a piece of a long one) and the time at which it was written, as RFC 3339."""

    time: str
    partial: bool
    text: str

    @classmethod
    def parse(cls, raw: bytes) -> Line:
        """Parse a line as shim.py writes it."""
        time, mark, text = raw.rstrip(b"\n").split(b" ", 2)
        return cls(time.decode(), mark == b"P", text.decode(errors="replace"))

    def rendered(self, *, timestamps: bool) -> bytes:
        """Return the text that the log endpoint sends."""
        start = f"{self.time} " if timestamps else ""
        return f"{start}{self.text}{'' if self.partial else chr(10)}".encode()


def read_file(path: Path) -> Iterator[Line]:
    """Yield every whole line of one file; nothing if it does not exist."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        for raw in file:
            if raw.endswith(b"\n"):
                yield Line.parse(raw)


def read(folder: Path) -> Iterator[Line]:
    """Yield every line of an attempt that is kept, oldest first."""
    yield from read_file(folder / "log.old")
    yield from read_file(folder / "log")


def tail(folder: Path, count: int) -> Iterator[Line]:
    """Return the last lines of an attempt."""
    return iter(deque(read(folder), maxlen=count))


class Follower:
    """Reads a log that grows and is sometimes renamed to `log.old`; starts with what is there."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log"
        self._file = open(self._path, "rb")  # noqa: SIM115 (open for as long as it is followed)
        self._rest = b""

    def new_lines(self) -> Iterator[Line]:
        """Yield the lines written since the last call."""
        yield from self._drain()
        try:
            renamed = self._path.stat().st_ino != self._inode()
        except FileNotFoundError:
            return
        if renamed:
            yield from self._drain()  # lines that were written between the last read and the renaming
            self._file.close()
            self._file = open(self._path, "rb")  # noqa: SIM115 (open for as long as it is followed)
            yield from self._drain()

    def _inode(self) -> int:
        return os.fstat(self._file.fileno()).st_ino

    def _drain(self) -> Iterator[Line]:
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        for raw in whole:
            yield Line.parse(raw)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


async def pause() -> None:
    """Wait a moment for more lines."""
    await asyncio.sleep(POLL_SECONDS)
