"""The files of a snapshot and of a holdout in the store, and how to read them. Imports no torch.

A snapshot (``store.snapshot``) is the training side of an Expert's documents:

    documents.jsonl      one Document per line, in reading order
    snapshot.json        SnapshotRecord: counts, and the holdout's windows at that time
    fingerprints.jsonl   one Fingerprint per line (deduplication/fingerprints.py): what a model that read it has seen
    report.json          the same counts for people, by source and reason

A holdout (``store.holdout``) is one immutable window of held-out documents:

    documents.jsonl      one Document per line, ordered by cluster
    fingerprints.jsonl   one Fingerprint per line

Both are committed by a manifest (storage/manifest.py). A Document's text is UTF-8 without NUL, and its bits per byte are
measured on the UTF-8 bytes. Segments are cut when a model is scored. A conversation is a Document whose ``turns`` say
who wrote which words (text/content.py); the tokenizer of the model decides how it is rendered.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from moe_formats.format import Digest, Format
from moe_formats.job_report import Window
from moe_trainer import limits
from moe_trainer.storage.manifest import lines_of, read_format
from moe_trainer.text.content import Content

DOCUMENTS = "documents.jsonl"
FINGERPRINTS = "fingerprints.jsonl"
RECORD = "snapshot.json"
REPORT = "report.json"


class Document(Content):
    """One document: a file or a record, or a piece of one if it is longer than 64 KiB."""

    cluster: str = Field(description="The id of its cluster of near-duplicates: 16 hexadecimal digits.")
    source: int | None = Field(
        default=None, description="The number of its source in the spec; only where sources have weights."
    )


class SnapshotRecord(Format):
    """The content of ``snapshot.json``."""

    digest: Digest = Field(description="The data digest.")
    scheme: int = Field(description="The pool's scheme (data_scheme.py).")
    documents: int
    train_bytes: int
    dropped: dict[str, int]
    weights: tuple[float, ...] | None = Field(
        default=None, description="The weight of each source; absent if no source has one."
    )
    anchor: Window
    newest: Window | None = None


def read_documents(folder: Path) -> Iterator[Document]:
    """Yield the documents of a snapshot or a holdout, in their order; the folder must be open (storage/committed.py)."""
    for line in lines_of(folder, DOCUMENTS, limits.DOCUMENT_BYTES):
        yield Document.model_validate_json(line)


def document_line(cluster: str, content: bytes, source: int | None = None) -> bytes:
    """Return the line of a Document, given the line of its Content; the same as Document.to_json returns."""
    of_source = "" if source is None else f'"source":{source},'
    return f'{{"cluster":"{cluster}",{of_source}'.encode() + content[1:]


def read_record(folder: Path) -> SnapshotRecord:
    """Return a snapshot's record; the folder must be open (storage/committed.py)."""
    return read_format(folder, RECORD, SnapshotRecord)
