"""What becomes of documents as they are read: filtered, named and signed, a batch at a time.

This is most of a snapshot's work and depends on nothing else, so that several processes can share it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from moe_formats.job_config import Filter
from moe_trainer.deduplication.catalogue import Names, names_of
from moe_trainer.deduplication.minhash import Signatures, signatures
from moe_trainer.snapshots.filters import dropped_by
from moe_trainer.text.content import Content

#: Characters of text in a batch.
BATCH_CHARACTERS = 256 * 1024
#: Documents in a batch.
BATCH_DOCUMENTS = 2048


@dataclass(frozen=True)
class Signed:
    """The documents of a batch that no filter dropped."""

    names: Names
    signatures: Signatures
    lines: list[bytes]  #: Each content as JSON, with a newline.
    sizes: list[int]  #: UTF-8 bytes of each text.
    dropped: Counter[str]


def sign(filters: Sequence[Filter], contents: Sequence[Content]) -> Signed:
    """Filter, name and sign the documents of a batch."""
    reasons = [dropped_by(filters, content.text) for content in contents]
    kept = [content for content, reason in zip(contents, reasons, strict=True) if reason is None]
    return Signed(
        names=names_of([content.name() for content in kept]),
        signatures=signatures([content.text for content in kept]),
        lines=[content.to_line() for content in kept],
        sizes=[len(content.text.encode()) for content in kept],
        dropped=Counter(reason for reason in reasons if reason is not None),
    )


def in_batches(contents: Iterable[Content]) -> Iterator[list[Content]]:
    """Yield documents in batches that are bounded in number and in size."""
    batch: list[Content] = []
    size = 0
    for content in contents:
        batch.append(content)
        size += len(content.text)
        if size >= BATCH_CHARACTERS or len(batch) == BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
