"""Formats of a snapshot and of a holdout in the store, and how to read them. Imports no torch.

A snapshot (``store.snapshot``) is the training side of an Expert's documents:

    documents.jsonl    one Document a line, in reading order
    snapshot.json      SnapshotRecord: counts, the holdout's windows at that time
    fingerprints.jsonl one Fingerprint a line (fingerprints.py): what its readers have trained on
    report.json        the same counts for people, per source and per reason

A holdout (``store.holdout``) is one immutable window of held-out documents:

    documents.jsonl    one Document a line, ordered by cluster
    fingerprints.jsonl one Fingerprint a line

Both are committed by a manifest (manifest.py). A Document's text is UTF-8 without NUL; its bits per
byte are measured on the UTF-8 bytes. Segments are cut by whoever scores. A conversation is a Document
whose ``turns`` say which words are whose (content.py); rendering it is left to who has the tokenizer.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from moe_formats.format import Digest, Format
from moe_formats.job_report import Window
from moe_trainer.text.content import Content

DOCUMENTS = "documents.jsonl"
FINGERPRINTS = "fingerprints.jsonl"
RECORD = "snapshot.json"
REPORT = "report.json"


class Document(Content):
    """One document: a file or a record, or a piece of one that is longer than 64 KiB."""

    cluster: str = Field(description="Id of its cluster of near-duplicates: 16 hexadecimal digits.")
    source: int | None = Field(default=None, description="Number of its source, where sources have weights.")


class SnapshotRecord(Format):
    """What ``snapshot.json`` says."""

    digest: Digest = Field(description="The data digest.")
    scheme: int = Field(description="Version of the clustering and splitting scheme.")
    documents: int
    train_bytes: int
    dropped: dict[str, int]
    weights: tuple[float, ...] | None = Field(default=None, description="By source; absent: none has one.")
    anchor: Window
    newest: Window | None = None


def read_documents(folder: Path) -> Iterator[Document]:
    """Yield the documents of a snapshot or a holdout, in their order. Verify the folder first."""
    with (folder / DOCUMENTS).open(encoding="utf-8") as file:
        for line in file:
            yield Document.model_validate_json(line)


def document_line(cluster: str, content: bytes, source: int | None = None) -> bytes:
    """Return a Document as a line, given its Content as one; what Document.to_json would say."""
    of_source = "" if source is None else f'"source":{source},'
    return f'{{"cluster":"{cluster}",{of_source}'.encode() + content[1:]


def read_record(folder: Path) -> SnapshotRecord:
    """Return a snapshot's record."""
    return SnapshotRecord.model_validate_json((folder / RECORD).read_text())
