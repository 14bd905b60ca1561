"""Reads the records of a file, one at a time: lines of jsonl, rows of parquet.

A record that cannot be read is yielded as such, with its place and what is wrong with it. A file that is not what its
name says is an error: reading only half of it is never what was meant.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moe_formats.failure import JobError
from moe_trainer.sources.compression import BUFFER_BYTES
from moe_trainer.sources.conversations import UnusableError
from moe_trainer.sources.files import File

#: Longer lines are not read.
MAX_RECORD_BYTES = 16 * 1024 * 1024
#: Rows that are decoded at once: only this many documents are in memory, however large a row group is.
PARQUET_ROWS = 64
#: Most names that an error message lists.
NAMES_LISTED = 10

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Record:
    """One record, or the reason why it cannot be read."""

    where: str  #: Its place in the file: `line 12`, `row 3`.
    value: object = None  #: The value of the field that was asked for.
    fault: UnusableError | None = None


def json_lines(stream: io.BufferedIOBase, field: str) -> Iterator[Record]:
    """Yield one field of each record of a jsonl file, with line numbers from 1; blank lines are skipped."""
    number = 0
    while line := stream.readline(MAX_RECORD_BYTES):
        number += 1
        where = f"line {number}"
        if len(line) == MAX_RECORD_BYTES and not line.endswith(b"\n"):
            _skip_line(stream)
            yield Record(where, fault=UnusableError("tooLarge", f"longer than {MAX_RECORD_BYTES} bytes"))
        elif line.strip():
            try:
                yield Record(where, _field_of(line.removeprefix(_BYTE_ORDER_MARK), field))
            except UnusableError as fault:
                yield Record(where, fault=fault)


def parquet_rows(raw: io.RawIOBase, file: File, field: str, setting: str) -> Iterator[Record]:
    """Yield one column of a parquet file, with row numbers from 1; other columns are not read.

    Raises JobError (DataUnreadable) for a file without the column, naming the setting that chooses it, and for one
    that is damaged or not parquet.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(
            pyarrow.PythonFile(raw, mode="r"),
            buffer_size=BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        )
        if field not in opened.schema_arrow.names:
            raise JobError(
                "DataUnreadable",
                f"{file} has no column {field!r}; it has: {_listed(opened.schema_arrow.names)}. "
                f"Name one of them in {setting} of the source.",
            )
        number = 0
        for batch in opened.iter_batches(PARQUET_ROWS, columns=[field], use_threads=False):
            for value in batch.column(0):
                number += 1
                yield _row(number, value)
    except pyarrow.ArrowException as error:
        raise JobError("DataUnreadable", f"{file} cannot be read as parquet: {error}"[:500]) from None
    except OSError as error:
        if error.errno is not None:  # an error of the disk, not of the decoder
            raise
        raise JobError("DataUnreadable", f"{file} cannot be read as parquet: {error}"[:500]) from None


def _row(number: int, value: Any) -> Record:
    try:
        return Record(f"row {number}", value.as_py())
    except UnicodeDecodeError:
        return Record(f"row {number}", fault=UnusableError("notUtf8", "its text is not UTF-8"))


def _skip_line(stream: io.BufferedIOBase) -> None:
    while (rest := stream.readline(MAX_RECORD_BYTES)) and not rest.endswith(b"\n"):
        pass


def _field_of(line: bytes, field: str) -> object:
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise UnusableError("notUtf8", f"byte {error.start + 1} is not UTF-8") from None
    except RecursionError:
        raise UnusableError("brokenRecord", "nested too deeply") from None
    except ValueError as error:
        raise UnusableError("brokenRecord", f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise UnusableError("missingField", "not a JSON object, so it has no fields")
    if field not in record:
        raise UnusableError("missingField", f"no field {field!r}; it has: {_listed(list(record))}")
    return record[field]


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"{name:.40}" for name in names[:NAMES_LISTED])
    return (shown or "none") + (", …" if len(names) > NAMES_LISTED else "")
