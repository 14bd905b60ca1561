"""Reading documents from sources: plain text files, and records of jsonl files.

Everything that is read lies beneath ``MOE_SOURCES/<root>``; a path that leads out of it, by ``..``, by
being absolute or through a link, is refused before it is opened. What cannot be used is counted by
reason and skipped; a source of which nothing can be used is an error.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from moe_trainer.failure import JobError
from moe_trainer.job_config import Source

#: Longer documents are cut at blank lines.
MAX_DOCUMENT_BYTES = 64 * 1024
#: Larger files (text) and lines (jsonl) are not read.
MAX_TEXT_FILE_BYTES = 256 * 1024 * 1024
MAX_RECORD_BYTES = 16 * 1024 * 1024


@dataclass
class SourceCount:
    """What one source held."""

    source: Source
    files: int = 0
    documents: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def check(self) -> None:
        """Raise JobError if the source is of no use: DataMissing, DataEmpty or DataUnreadable."""
        what = f"source {self.source.root}/{self.source.path}"
        if not self.files:
            raise JobError(
                "DataMissing", f"{what}: no file matches. Correct spec.data.sources, or put files there."
            )
        broken = sum(count for reason, count in self.dropped.items() if reason != "empty")
        if broken > self.documents:
            counts = ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common())
            raise JobError(
                "DataUnreadable",
                f"{what}: more is broken than can be read ({counts}; {self.documents} readable). "
                f"It is read as {self.source.format}, UTF-8: correct its format or textField, or the files.",
            )
        if not self.documents:
            raise JobError("DataEmpty", f"{what}: its {self.files} files hold no text.")


def read_source(sources: Path, count: SourceCount) -> Iterator[str]:
    """Yield the documents of one source in the order of file names, counting as it goes."""
    for path in matching_files(sources, count.source):
        count.files += 1
        pieces = _text_file(path, count) if count.source.format == "text" else _jsonl_file(path, count)
        for text in pieces:
            for document in cut(text):
                count.documents += 1
                yield document


def matching_files(sources: Path, source: Source) -> list[Path]:
    """Return the files that a source's glob matches, sorted; raises JobError (PathNotAllowed, DataMissing)."""
    if "/" in source.root or source.root in ("", ".", ".."):
        raise JobError("PathNotAllowed", f"source root {source.root!r} must be the name of a store or claim.")
    root = sources / source.root
    if not root.is_dir():
        raise JobError(
            "DataMissing", f"source root {source.root!r} is not mounted: no such store or claim here."
        )
    resolved_root = root.resolve()
    try:
        matches = list(root.glob(source.path))
    except ValueError as error:
        raise JobError("PathNotAllowed", f"source path {source.path!r} is no glob: {error}.") from None
    found = []
    for path in matches:
        if not path.resolve().is_relative_to(resolved_root):
            raise JobError(
                "PathNotAllowed",
                f"{source.root}/{path.relative_to(root)} is a link that leads out of {source.root!r}: "
                "copy the file there instead.",
            )
        if path.is_file():
            found.append(path)
    return sorted(found)


def cut(text: str) -> Iterator[str]:
    """Yield a text whole if it is at most 64 KiB of UTF-8, else in pieces cut at blank lines.

    A paragraph that is longer by itself is cut between characters.
    """
    if len(text.encode()) <= MAX_DOCUMENT_BYTES:
        yield text
        return
    piece, size = "", 0
    for paragraph in _paragraphs(text):
        length = len(paragraph.encode())
        if size + length > MAX_DOCUMENT_BYTES and piece.strip():
            yield piece
            piece, size = "", 0
        piece, size = piece + paragraph, size + length
    if piece.strip():
        yield piece


def _paragraphs(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n\n", start)
        paragraph = text[start : len(text) if end < 0 else end + 2]
        start += len(paragraph)
        data = paragraph.encode()
        while len(data) > MAX_DOCUMENT_BYTES:
            head = data[:MAX_DOCUMENT_BYTES].decode(errors="ignore")
            yield head
            data = data[len(head.encode()) :]
        yield data.decode()


def _text_file(path: Path, count: SourceCount) -> Iterator[str]:
    if path.stat().st_size > MAX_TEXT_FILE_BYTES:
        count.dropped["tooLarge"] += 1
        return
    text = _decoded(path.read_bytes(), count)
    if text is not None:
        yield text


def _jsonl_file(path: Path, count: SourceCount) -> Iterator[str]:
    with path.open("rb") as file:
        while line := file.readline(MAX_RECORD_BYTES):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                count.dropped["brokenRecord"] += 1
                continue
            value = record.get(count.source.text_field) if isinstance(record, dict) else None
            if not isinstance(value, str):
                count.dropped["missingField"] += 1
                continue
            text = _decoded(value.encode(errors="surrogatepass"), count)
            if text is not None:
                yield text


def _decoded(data: bytes, count: SourceCount) -> str | None:
    """Return the text of bytes, or count why they are none."""
    if not data.strip():
        count.dropped["empty"] += 1
    elif b"\0" in data:
        count.dropped["binary"] += 1
    else:
        try:
            return data.decode()
        except UnicodeDecodeError:
            count.dropped["notUtf8"] += 1
    return None
