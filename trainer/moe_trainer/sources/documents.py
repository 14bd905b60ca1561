"""Reads the documents of a source, one at a time, in whatever format they are.

    files       listed, opened and watched              files.py, object_store.py
    bytes       decompressed by the end of the name     compression.py
    records     *.jsonl, *.ndjson: lines        records.py
                *.parquet: rows                 parquet_rows.py
                anything else is one text
    documents   a text, or a conversation; long ones in pieces      conversations.py, cutting.py

What cannot be used is skipped and counted by reason, with the place of the first of each kind. If more records
of a source are broken than readable, that is an error.
"""

import codecs
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from moe_formats.data_scheme import FIRST, WITH_THOUGHTS, Scheme
from moe_formats.failure import JobError
from moe_formats.job_config import Source
from moe_trainer.sources.budget import Budget, faults_of
from moe_trainer.sources.compression import BUFFER_BYTES, decompressed, without_compression
from moe_trainer.sources.conversations import parse_conversation
from moe_trainer.sources.cutting import MAX_DOCUMENT_BYTES, cut_conversation, cut_text
from moe_trainer.sources.faults import UnusableError, check_encoding, check_text
from moe_trainer.sources.files import File, Files
from moe_trainer.sources.parquet_rows import ParquetReader
from moe_trainer.sources.records import Record, json_lines
from moe_trainer.text.content import BYTE_ORDER_MARK, Content

#: The reason of what a glob matches that is no file which can be read.
NOT_READ = "notRead"

_LINES = frozenset({".jsonl", ".ndjson"})
_ROWS = frozenset({".parquet"})


@dataclass
class SourceCount:
    """What was found in one source."""

    source: Source
    scheme: Scheme = FIRST  #: How the text of its files is read and cut.
    files: int = 0
    documents: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    #: The first one dropped for each reason: where it is and what is wrong with it.
    examples: dict[str, str] = field(default_factory=dict)
    #: Fields of messages that nothing reads, by name.
    passed_over: Counter[str] = field(default_factory=Counter)

    def drop(self, fault: UnusableError, where: str) -> None:
        """Count something that cannot be used."""
        self.dropped[fault.reason] += 1
        self.examples.setdefault(fault.reason, f"{where}: {fault.what}")

    def check(self) -> None:
        """Raise JobError (DataMissing, DataEmpty or DataUnreadable) if the source cannot be used."""
        what = f"source {self.source.root}/{self.source.path}"
        if not self.files:
            but = f", but {self.examples[NOT_READ].replace(':', '', 1)}" if NOT_READ in self.examples else ""
            raise JobError(
                "DataMissing", f"{what}: no file matches{but}. Correct spec.data.sources, or put files there."
            )
        broken = Counter(
            {reason: n for reason, n in self.dropped.items() if reason not in ("empty", NOT_READ)}
        )
        if broken.total() > self.documents:
            counts = ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common())
            setting = "messagesField" if self.source.format == "messages" else "textField"
            raise JobError(
                "DataUnreadable",
                f"{what}: more records are broken than readable ({counts}; {self.documents} readable). "
                f"First: {self.examples[broken.most_common(1)[0][0]]}. "
                f"It is read as {self.source.format}, UTF-8: correct its format or {setting}, or the files.",
            )
        if not self.documents:
            raise JobError("DataEmpty", f"{what}: its {self.files} files hold no text.")


def read_source(files: Files, count: SourceCount) -> Iterator[Content]:
    """Yield the documents of one source, file by file in the order of their names, and count them.

    Raises JobError (DataUnreadable) for a file that is damaged or exceeds a limit; it names both.
    """
    budget = Budget()
    with ParquetReader(budget) as parquet:
        matching = files.matching(count.source.path)
        for path, what in files.left_out:
            count.drop(UnusableError(NOT_READ, what), path)
        for file in matching:
            count.files += 1
            with files.open(file) as raw, faults_of(file):
                for document in _documents(raw, file, count, budget, parquet):
                    count.documents += 1
                    yield document


def _documents(
    raw: io.RawIOBase, file: File, count: SourceCount, budget: Budget, parquet: ParquetReader
) -> Iterator[Content]:
    source = count.source
    kind = PurePosixPath(without_compression(file.path)).suffix.lower()
    setting = "messagesField" if source.format == "messages" else "textField"
    name = source.messages_field if source.format == "messages" else source.text_field
    if kind in _ROWS and source.format != "jsonl":
        yield from _from_records(parquet.rows(raw, name, setting), file, count, budget)
    elif kind in _LINES or source.format == "jsonl":
        yield from _from_records(json_lines(decompressed(raw, file.path, budget), name), file, count, budget)
    elif source.format == "messages":
        raise JobError(
            "DataUnreadable",
            f"{file} is read as plain text because of its name, and plain text has no messages: format messages reads "
            "*.jsonl, *.ndjson and *.parquet. Correct the source's path, or rename the file.",
        )
    elif name != Source.model_fields["text_field"].default:
        raise JobError(
            "DataUnreadable",
            f"{file} is read as plain text because of its name, and plain text has no textField {name!r}: format text finds "
            "fields in *.jsonl, *.ndjson and *.parquet. If it holds lines of JSON, set format: jsonl; otherwise correct the "
            "source's path, or read it by a source without textField.",
        )
    else:
        yield from _from_text(decompressed(raw, file.path, budget), file, count)


def _from_records(
    records: Iterator[Record], file: File, count: SourceCount, budget: Budget
) -> Iterator[Content]:
    parse = _conversation if count.source.format == "messages" else _text
    for record in records:
        try:
            if record.fault is not None:
                raise record.fault
            documents = parse(record.value, count)
        except UnusableError as fault:
            count.drop(fault, f"{file} {record.where}")
            continue
        yield from documents if parse is _text else _within(budget, documents)


def _within(budget: Budget, pieces: Iterator[Content]) -> Iterator[Content]:
    """Yield the pieces of a conversation, which repeat its system message, as long as they are not too much together."""
    for piece in pieces:
        budget.make(len(piece.text))
        yield piece


def _text(value: object, count: SourceCount) -> Iterator[Content]:
    if isinstance(value, bytes):
        raise UnusableError(
            "notUtf8", f"{count.source.text_field!r} is binary and not UTF-8: write it as a column of strings"
        )
    if not isinstance(value, str):
        raise UnusableError("missingField", f"{count.source.text_field!r} is not text")
    check_text(value)
    if len(value.encode()) <= MAX_DOCUMENT_BYTES:
        return iter([Content(text=value)])
    return (Content(text=piece) for piece in cut_text([value], count.scheme))


def _conversation(value: object, count: SourceCount) -> Iterator[Content]:
    field = count.source.messages_field
    if not isinstance(value, list):
        raise UnusableError("missingField", f"{field!r} is not a list of messages")
    content = parse_conversation(value, field, count.passed_over, thoughts=count.scheme >= WITH_THOUGHTS)
    check_text(content.text)
    return cut_conversation(content)


def _from_text(stream: io.BufferedIOBase, file: File, count: SourceCount) -> Iterator[Content]:
    """Yield the text of a plain file, in pieces. Reading ends at the first byte that is not text."""
    documents = 0
    try:
        for piece in cut_text(_chunks(stream, count.scheme), count.scheme):
            documents += 1
            yield Content(text=piece)
    except UnusableError as fault:
        count.drop(fault, str(file))
        return
    if not documents:
        count.drop(UnusableError("empty", "no text"), str(file))


def _chunks(stream: io.BufferedIOBase, scheme: Scheme) -> Iterator[str]:
    """Yield a text in parts; raises UnusableError (empty, binary, notUtf8) that names the byte."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    data = stream.read(BUFFER_BYTES)
    position, last = 0, len(data) < BUFFER_BYTES
    check_encoding(data)
    mark = BYTE_ORDER_MARK.encode()
    if scheme != FIRST and data.startswith(mark):
        data, position = data.removeprefix(mark), len(mark)
    if last and not data.strip():
        raise UnusableError("empty", "no text")
    while True:
        if b"\0" in data:
            raise UnusableError("binary", f"byte {position + data.index(0) + 1} is NUL")
        try:
            yield decode(data, last)
        except UnicodeDecodeError as error:
            raise UnusableError("notUtf8", f"near byte {position + error.start + 1}") from None
        if last:
            return
        position += len(data)
        data = stream.read(BUFFER_BYTES)
        last = len(data) < BUFFER_BYTES
