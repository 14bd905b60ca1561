"""The process that decodes parquet. Its imports are few, so that it starts fast.

it is asked     (size of the file, column, name of the setting that chooses it)
it asks         (start, size), and is answered with bytes
it answers      ROWS, and then some rows of the column as a stream of Arrow
TooLarge: one row that nothing could be made of
None at the end of the file, or Failed
"""

import io
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_trainer import limits
from moe_trainer.sources.faults import FaultyFileError, listed
from moe_trainer.sources.positioned import PositionedStream

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

#: The program of the process; its arguments are those of ``serve``.
PROGRAM = f"import sys; from {__name__} import serve; serve(*map(int, sys.argv[1:]))"

#: Rows that are decoded at once, at most, and their size by what the file claims, in bytes.
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 1024, 1 << 20
#: Bytes of a file that are asked for at once.
_BYTES_ASKED = 1 << 20


@dataclass(frozen=True)
class Failed:
    """What is wrong with a file; continues a sentence that begins with its name."""

    what: str


@dataclass(frozen=True)
class Rows:
    """Rows follow."""

    size: int  #: In bytes.


@dataclass(frozen=True)
class TooLarge:
    """A row that exceeds a limit."""

    what: str


def serve(descriptor: int, memory: int, value_bytes: int) -> None:
    """Answer requests over a descriptor of a connection, until its other end is closed."""
    import pyarrow

    connection = Connection(descriptor)
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # others reserve memory that they do not use
    pyarrow.set_cpu_count(1)  # nothing is decoded in parallel, and the stack of each thread counts as memory
    pyarrow.set_io_thread_count(1)
    _limit_memory(memory)
    while True:
        try:
            size, field, setting, local = connection.recv()
            with io.FileIO(recv_handle(connection)) if local else _Asked(connection, size) as raw:
                connection.send(_decode(connection, raw, field, setting, value_bytes))
        except (EOFError, BrokenPipeError, ConnectionResetError):  # nobody is waiting for it any more
            return
        except MemoryError:
            connection.send(
                Failed(
                    f"takes more than {memory} bytes of memory to read, because a page or a row of it is too large. Write it "
                    "again with smaller pages and rows."
                )
            )


def _decode(
    connection: Connection, raw: io.RawIOBase, field: str, setting: str, value_bytes: int
) -> Failed | None:
    import pyarrow

    try:
        for column in _columns(raw, field, setting):
            for part in _in_bounds(column, value_bytes):
                if isinstance(part, TooLarge):
                    connection.send(part)
                else:
                    _send(connection, _serialised(part))
    except FaultyFileError as fault:
        return Failed(str(fault))
    except MemoryError:
        raise
    except (pyarrow.ArrowException, RecursionError) as error:
        return Failed(f"cannot be read as parquet: {error}"[:500])
    except OSError as error:
        if error.errno is not None:  # an error of the connection, not of the decoder
            raise
        return Failed(f"cannot be read as parquet: {error}"[:500])
    return None


def _limit_memory(memory: int) -> None:
    """Let the process allocate only so much more than it has now."""
    status = Path("/proc/self/status").read_text().splitlines()
    now = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (now + memory, now + memory))


class _Asked(PositionedStream):
    """A file that the other end reads."""

    def __init__(self, connection: Connection, size: int) -> None:
        super().__init__(size)
        self._connection = connection

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        """Fill the buffer, unless the file ends before: the decoder takes less for the end."""
        wanted = min(len(buffer), max(0, self.size - self.position))
        filled = 0
        while filled < wanted:
            self._connection.send((self.position, wanted - filled))
            data = self._connection.recv_bytes()
            if not data:
                break
            buffer[filled : filled + len(data)] = data
            filled += len(data)
            self.position += len(data)
        return filled


def _columns(raw: io.RawIOBase, field: str, setting: str) -> Iterator[Any]:
    """Yield one column of a file in portions of some rows."""
    import pyarrow
    from pyarrow import parquet

    opened = parquet.ParquetFile(
        pyarrow.PythonFile(raw, mode="r"),
        buffer_size=_BYTES_ASKED,
        pre_buffer=False,
        page_checksum_verification=True,
    )
    names = opened.schema_arrow.names
    if field not in names:
        raise FaultyFileError(
            f"has no column {field!r}; it has: {listed(names)}. Name one of them in {setting} of the source."
        )
    paths = enumerate(opened.schema.column(number).path for number in range(len(opened.schema)))
    parts = [number for number, path in paths if path == field or path.startswith(f"{field}.")]
    for group in range(opened.num_row_groups):
        at_once = _rows_at_once(opened, group, parts)
        for batch in opened.iter_batches(at_once, row_groups=[group], columns=[field], use_threads=False):
            # Parts of other columns may have the name as their path, and are read along with it.
            yield _without_dictionaries(batch.column(batch.schema.names.index(field)))


def _without_dictionaries(column: Any) -> Any:
    """Return a column with all its values written out: with a dictionary, a value may be repeated at no cost."""
    plain = _plain(column.type)
    return column if plain == column.type else column.cast(plain)


def _plain(type: Any) -> Any:
    """Return a type without dictionaries, and without extension types, which may be stored as such."""
    import pyarrow
    from pyarrow import types

    if isinstance(type, pyarrow.BaseExtensionType):
        return _plain(type.storage_type)
    if types.is_dictionary(type):
        return _plain(type.value_type)
    if types.is_struct(type):
        return pyarrow.struct([field.with_type(_plain(field.type)) for field in type])
    if types.is_list(type) or types.is_list_view(type):
        return pyarrow.list_(type.value_field.with_type(_plain(type.value_type)))
    if types.is_large_list(type) or types.is_large_list_view(type):
        return pyarrow.large_list(type.value_field.with_type(_plain(type.value_type)))
    if types.is_fixed_size_list(type):
        return pyarrow.list_(type.value_field.with_type(_plain(type.value_type)), type.list_size)
    if types.is_map(type):
        return pyarrow.map_(_plain(type.key_type), _plain(type.item_type))
    return type


def _rows_at_once(opened: "ParquetFile", group: int, parts: list[int]) -> int:
    """Return how many rows of a row group to decode at once, by what the file claims of the column's parts."""
    found = opened.metadata.row_group(group)
    claimed = sum(found.column(number).total_uncompressed_size for number in parts)
    at_once: int = _BYTES_AT_ONCE * found.num_rows // max(1, claimed)
    return max(1, min(_ROWS_AT_ONCE, at_once))


def _in_bounds(column: Any, value_bytes: int) -> Iterator[Any]:
    """Yield a column in parts that are small enough to be made into values, and TooLarge for rows that are not."""
    if column.nbytes <= limits.RECORD_BYTES and _elements(column) <= limits.RECORD_CONTAINERS:
        yield column
    elif len(column) > 1:
        half = len(column) // 2
        yield from _in_bounds(column[:half], value_bytes)
        yield from _in_bounds(column[half:], value_bytes)
    elif _elements(column) > limits.RECORD_CONTAINERS:
        yield TooLarge(f"more than {limits.RECORD_CONTAINERS} values in one row")
    else:
        allowed = limits.RECORD_BYTES if _inside(column) else value_bytes
        yield column if column.nbytes <= allowed else TooLarge(f"longer than {allowed} bytes")


def _elements(column: Any) -> int:
    """Return the number of values of a column, on all levels of its lists and structs."""
    return len(column) + sum(map(_elements, _inside(column)))


def _inside(column: Any) -> list[Any]:
    """Return what a column of lists or structs consists of; nothing for other types."""
    import pyarrow
    from pyarrow import types

    if types.is_struct(column.type):
        found: list[Any] = column.flatten()
        return found
    if types.is_map(column.type):
        pair = pyarrow.struct({"key": column.type.key_type, "value": column.type.item_type})
        return [column.cast(pyarrow.list_(pair)).flatten()]
    return [column.flatten()] if types.is_nested(column.type) and not types.is_union(column.type) else []


def _serialised(column: Any) -> memoryview:
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    batch = pyarrow.record_batch([column], names=["column"])
    with pyarrow.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return memoryview(sink.getvalue())


def _send(connection: Connection, data: memoryview) -> None:
    connection.send(Rows(len(data)))
    while data:
        data = data[os.write(connection.fileno(), data) :]
