"""Segments of held-out documents, on which models are compared; they are defined by bytes and not by tokens.

    document   |........|----------------|----------------|------
                context     segment 1        segment 2      ...

Every model scores a segment after the same context: the bytes before it in its document. Characters are never cut in
two, since a tokenizer of text could read neither part. When routing is judged, the context also stands for a short
prompt: route on the context, score the segment.

Nothing is claimed on text that one side was trained on. A pool excludes held-out documents from later training
snapshots, so usually none is. A domain that joins after its base was trained is the exception: the base may have read
what is held out now.
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from moe_formats.segment_size import CONTEXT_BYTES, SegmentBytes
from moe_trainer.deduplication.catalogue import Catalogue, digits_of
from moe_trainer.deduplication.fingerprints import read_fingerprints, take_up
from moe_trainer.deduplication.minhash import THRESHOLD
from moe_trainer.deduplication.near_duplicates import Resembling, search
from moe_trainer.snapshots.layout import FINGERPRINTS, Document

MAX_SEGMENTS = 256


@dataclass(frozen=True)
class Segment:
    """Bytes to score, the bytes before them, and the cluster of their document."""

    cluster: str
    context: bytes
    text: bytes


def scorer_version(segment_bytes: SegmentBytes) -> str:
    """Return the version of cutting and scoring, part of a cell's identity. Change it when any cut or score changes."""
    return f"bytes-{CONTEXT_BYTES}+{segment_bytes}-of-{MAX_SEGMENTS}-v2"


def shortest_tail(segment_bytes: SegmentBytes) -> int:
    """Return the fewest bytes that a tail must have to be scored; a shorter one is scored only as the only segment."""
    return segment_bytes // 4


def cut(
    documents: Iterable[Document], segment_bytes: SegmentBytes, limit: int = MAX_SEGMENTS
) -> list[Segment]:
    """Return at most ``limit`` segments of at most ``segment_bytes``, taken round-robin over the clusters.

    Within a cluster segments are ordered by their hash, so that the heads of documents are not preferred; nothing
    depends on the order of the documents. Memory is bounded by the limit: clusters after the first ``limit``, and
    segments of a cluster after that many, cannot be reached and are dropped.
    """
    clusters: dict[str, list[Segment]] = {}
    behind = ""  # clusters from this name on cannot be reached; empty: all can
    for document in documents:
        name = document.cluster
        found = () if behind and name >= behind else tuple(_segments(document, segment_bytes))
        if not found:
            continue
        clusters[name] = heapq.nsmallest(limit, (*clusters.get(name, ()), *found), key=_hash)
        if len(clusters) > limit:
            behind = max(clusters)
            del clusters[behind]
    queues = [iter(clusters[name]) for name in sorted(clusters)]
    return list(islice(_round_robin(queues), limit))


def _segments(document: Document, segment_bytes: SegmentBytes) -> Iterator[Segment]:
    """Yield a document's segments; a short document has one, after a context of at most half of its bytes."""
    text = document.text.encode()
    start = at = _character(text, min(CONTEXT_BYTES, len(text) // 2))
    while at < len(text):
        end = _character(text, at + segment_bytes)
        if at == start or end - at >= shortest_tail(segment_bytes):
            before = at - CONTEXT_BYTES
            while before > 0 and _goes_on(text[before]):
                before += 1
            yield Segment(document.cluster, text[max(0, before) : at], text[at:end])
        at = end


def _character(text: bytes, at: int) -> int:
    """Return the first byte of the UTF-8 character at a place; for places beyond the text, the text's end."""
    at = min(at, len(text))
    while 0 < at < len(text) and _goes_on(text[at]):
        at -= 1
    return at


def _goes_on(byte: int) -> bool:
    """Return whether a byte continues a UTF-8 character that an earlier byte began."""
    return byte & 0xC0 == 0x80


def _hash(segment: Segment) -> bytes:
    return hashlib.sha256(segment.context + b"\0" + segment.text).digest()


def _round_robin(queues: list[Iterator[Segment]]) -> Iterator[Segment]:
    while queues:
        going_on = []
        for queue in queues:
            segment = next(queue, None)
            if segment is not None:
                yield segment
                going_on.append(queue)
        queues = going_on


def tainted_clusters(holdout: Path, snapshots: Iterable[Path]) -> frozenset[str]:
    """Return the holdout's clusters of which a document, or a near-duplicate of one, is in a snapshot."""
    with Catalogue() as catalogue:
        held_out, places = take_up(catalogue, read_fingerprints(holdout, FINGERPRINTS))
        for snapshot in snapshots:
            take_up(catalogue, read_fingerprints(snapshot, FINGERPRINTS))
        rows = np.arange(len(catalogue))
        trained_on = rows >= len(held_out)
        seen = Resembling(trained_on)
        search(catalogue, rows, THRESHOLD, seen)
        return frozenset(digits_of(places.clusters[seen.found[: len(held_out)]]))
