"""Rows of parquet, decoded in a process of their own (parquet_decoder.py).

A few kilobytes of parquet can describe gigabytes, and nothing in the file tells beforehand: sizes in its footer and its
pages are claims. The decoder is a large native library, and a file that is made for it can crash it. So it runs in a
process whose memory is limited. That process opens nothing: it gets a descriptor of the file, or asks for the bytes
that it wants if the file is in an object store.
"""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import send_handle
from signal import Signals
from typing import Any

from moe_formats.failure import TransientError
from moe_trainer import limits
from moe_trainer.sources.budget import Budget
from moe_trainer.sources.faults import FaultyFileError, UnusableError
from moe_trainer.sources.parquet_decoder import PROGRAM, Failed, Rows, TooLarge
from moe_trainer.sources.records import Record

#: Bytes of a file that are given at once.
_BYTES_GIVEN = 4 << 20

#: What a row counts as besides its value, in bytes.
_ROW_BYTES = 8

#: Signals by which a process ends if its own code did something that is not allowed; others come from outside.
_OF_THE_DECODER = {
    Signals.SIGSEGV,
    Signals.SIGABRT,
    Signals.SIGBUS,
    Signals.SIGFPE,
    Signals.SIGILL,
    Signals.SIGSYS,
}


class ParquetReader:
    """Reads parquet files one after the other; the process is started for the first one. Close it when done."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._connection: Connection | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._buffer = bytearray()

    def __enter__(self) -> "ParquetReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def rows(self, raw: io.RawIOBase, field: str, setting: str) -> Iterator[Record]:
        """Yield one column of a file, with row numbers from 1; other columns are not read.

        Raises FaultyFileError for a file without the column, naming the setting that chooses it, for one that is
        damaged or not parquet, and for one that exceeds a limit; TransientError (Crashed) if the process is killed.
        """
        connection = self._connection or self._start()
        self._ask(connection, raw, field, setting)
        number = 0
        try:
            while (message := self._received(connection)) is not None:
                if isinstance(message, Failed):
                    raise FaultyFileError(message.what)
                if isinstance(message, tuple):
                    connection.send_bytes(self._bytes(raw, *message))
                    continue
                for record in self._records(message, number):
                    number += 1
                    yield record
        except BaseException:  # also if nobody wants the rest: the process is in the middle of the file
            self._close()
            raise

    def _ask(self, connection: Connection, raw: io.RawIOBase, field: str, setting: str) -> None:
        size = raw.seek(0, io.SEEK_END)
        try:
            descriptor = raw.fileno()
        except OSError:  # it is not on this machine: its bytes are asked for
            connection.send((size, field, setting, False))
            return
        connection.send((size, field, setting, True))
        send_handle(connection, descriptor, None)
        self._budget.read(size)

    def _bytes(self, raw: io.RawIOBase, start: int, size: int) -> bytes:
        raw.seek(start)
        found = raw.read(min(size, _BYTES_GIVEN)) or b""
        self._budget.read(len(found))
        return found

    def _records(self, message: memoryview | TooLarge, number: int) -> Iterator[Record]:
        """Yield what a message says about the rows after the first ``number`` ones."""
        if isinstance(message, TooLarge):
            yield Record(f"row {number + 1}", fault=UnusableError("tooLarge", message.what))
            return
        import pyarrow  # importing it takes a quarter of a second

        column = pyarrow.ipc.open_stream(message).read_next_batch().column(0)
        self._budget.make(_ROW_BYTES * len(column) + column.nbytes)
        for row, value in enumerate(column, start=number + 1):
            yield _record(f"row {row}", value)

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        with theirs:
            numbers = (theirs.fileno(), limits.PARQUET_MEMORY_BYTES, limits.VALUE_BYTES)
            command = [sys.executable, "-P", "-c", PROGRAM, *map(str, numbers)]
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        self._connection = ours
        return ours

    def _received(self, connection: Connection) -> Any:
        try:
            self._wait(connection)
            message = connection.recv()
            return self._announced(connection, message.size) if isinstance(message, Rows) else message
        except (EOFError, ConnectionResetError):
            raise self._ended() from None

    def _wait(self, connection: Connection) -> None:
        """Wait until something can be received."""
        if not connection.poll(limits.PARQUET_SECONDS):
            raise FaultyFileError(
                f"keeps the reader of parquet busy for more than {limits.PARQUET_SECONDS:.0f} s without a row: write it again "
                "with smaller pages and row groups."
            )

    def _announced(self, connection: Connection, size: int) -> memoryview:
        """Return bytes that were announced; they are overwritten by the next ones, since new memory would take longer."""
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        wanted = memoryview(self._buffer)[:size]
        filled = 0
        while filled < size:
            self._wait(connection)
            received = os.readv(connection.fileno(), [wanted[filled:]])
            if not received:
                raise EOFError
            filled += received
        return wanted

    def _ended(self) -> Exception:
        """Return the error for a process that ended without an answer."""
        code = self._child.wait() if self._child is not None else 0
        if -code in _OF_THE_DECODER:
            return FaultyFileError(
                f"crashes the reader of parquet ({Signals(-code).name}): it is damaged, or made to do so. Write it again."
            )
        return TransientError(
            "Crashed", f"the process that reads parquet ended with code {code}, perhaps for lack of memory."
        )

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._connection = self._child = None


def _record(where: str, value: Any) -> Record:
    try:
        return Record(where, _with_text(value.as_py(maps_as_pydicts="strict")))
    except UnicodeDecodeError:
        return Record(where, fault=UnusableError("notUtf8", "its text is not UTF-8"))
    except KeyError:
        return Record(where, fault=UnusableError("brokenRecord", "a map in it holds a key twice"))


def _with_text(value: Any) -> Any:
    """Return a value with text in place of bytes that are UTF-8: some writers do not say that a column holds text."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, list):
        return [_with_text(inner) for inner in value]
    if isinstance(value, dict):
        return {name: _with_text(inner) for name, inner in value.items()}
    return value
