"""From the bytes of a file to its records, one at a time: lines of jsonl, rows of parquet.

A record that cannot be read is handed on as such, with its place and what is wrong with it. A file that is
not what its name says is an error: half of it is not what anybody meant.
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
#: Rows that are decoded at once: what is in memory is this many documents, whatever a row group holds.
PARQUET_ROWS = 64
#: At most so many names are listed in a message.
NAMES_LISTED = 10

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Record:
    """One record, or why there is none."""

    where: str  #: Its place in the file: `line 12`, `row 3`.
    value: object = None  #: The value of the field that was asked for.
    fault: UnusableError | None = None


def json_lines(stream: io.BufferedIOBase, field: str) -> Iterator[Record]:
    """Yield a field of each record of a jsonl file, by line number from 1; blank lines are passed over."""
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
    """Yield a column of a parquet file, by row number from 1; no other column is read.

    Raises JobError (DataUnreadable) for a file without the column, naming the setting that chooses it, and
    for one that is no parquet or is damaged.
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
        if error.errno is not None:  # the disk's word, not the decoder's
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
