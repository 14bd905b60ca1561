"""Commits a window: held-out documents in the order of their clusters, with their fingerprints.

The folder's name depends on its content, so it is written to scratch space first; no text is kept in memory.
"""

import hashlib
import heapq
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_formats.format import Digest
from moe_formats.job_report import Window
from moe_formats.segment_size import SegmentBytes
from moe_trainer import limits
from moe_trainer.deduplication.catalogue import Rows, digits_of
from moe_trainer.deduplication.fingerprints import Placement, fingerprint_lines
from moe_trainer.snapshots.intake import Intake
from moe_trainer.snapshots.layout import DOCUMENTS, FINGERPRINTS, Document, document_line
from moe_trainer.storage.committed import opened
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.manifest import lines_of, read_manifest


@dataclass(frozen=True, order=True)
class HeldOut:
    """One document of a window."""

    cluster: str
    name: str
    size: int  #: UTF-8 bytes of its text.
    line: bytes
    fingerprint: bytes


def of_rows(intake: Intake, rows: Rows, places: Placement) -> Iterator[HeldOut]:
    """Yield documents that this Job has read, in the order of a window."""
    names, clusters = intake.catalogue.names[rows], places.clusters[rows]
    rows = rows[np.lexsort((names, clusters))]
    prints = fingerprint_lines(intake.catalogue, rows, places)
    for row, content, fingerprint in zip(rows.tolist(), intake.lines_of(rows), prints, strict=True):
        at = slice(row, row + 1)
        (cluster,) = digits_of(places.clusters[at])
        (name,) = digits_of(intake.catalogue.names[at])
        yield HeldOut(cluster, name, int(intake.sizes[row]), document_line(cluster, content), fingerprint)


def of_window(root: Path, window: Window) -> Iterator[HeldOut]:
    """Yield the documents of a committed window in a store; raises JobError (ArtefactCorrupt)."""
    with opened(root, window.path, window.digest) as folder:
        lines = lines_of(folder, DOCUMENTS, limits.DOCUMENT_BYTES)
        prints = lines_of(folder, FINGERPRINTS, limits.FINGERPRINT_BYTES)
        for line, fingerprint in zip(lines, prints, strict=True):
            document = Document.model_validate_json(line)
            size = len(document.text.encode())
            yield HeldOut(document.cluster, document.name(), size, line, fingerprint)


def commit_window(
    documents: list[Iterator[HeldOut]],
    segment_bytes: SegmentBytes,
    scratch: Path,
    root: Path,
    path_of: Callable[[Digest], str],
) -> Window:
    """Commit documents as a new window; each iterator yields them in the order of a window.

    Returns the window, with the number of segments of ``segment_bytes`` in it.
    """
    digest, clusters, segments, last = hashlib.sha256(), 0, 0, ""
    scratch.mkdir(exist_ok=True)
    with (scratch / DOCUMENTS).open("wb") as lines, (scratch / FINGERPRINTS).open("wb") as prints:
        for document in heapq.merge(*documents):
            lines.write(document.line)
            digest.update(document.line)
            prints.write(document.fingerprint)
            clusters += document.cluster != last
            last = document.cluster
            segments += max(1, document.size // segment_bytes)
    path = path_of("sha256:" + digest.hexdigest())
    with new_folder(root, path, "holdout") as working:
        for name in (DOCUMENTS, FINGERPRINTS):
            with (scratch / name).open("rb") as made, (working / name).open("xb") as copy:
                shutil.copyfileobj(made, copy)
    return Window(path=path, digest=read_manifest(root, path)[1], clusters=clusters, segments=segments)
