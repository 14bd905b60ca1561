"""Replay: text of the base's own training is mixed into an Expert's, so that the Expert forgets less.

The text comes from the snapshots in the base's ancestry. By a hash of their names, as many documents are drawn as the
run will read. Documents that are in the Expert's own snapshot, or that resemble anything held out in the pool, are left
out. The pool's registry of held-out text only grows, so its length when the run first read it determines permanently
what was left out.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from moe_formats.format import Format
from moe_trainer import limits
from moe_trainer.deduplication.catalogue import Catalogue, digits_of
from moe_trainer.deduplication.fingerprints import (
    names_in,
    read_fingerprints,
    read_registry,
    registry_bytes,
    take_up,
)
from moe_trainer.deduplication.minhash import THRESHOLD
from moe_trainer.deduplication.near_duplicates import Resembling, search
from moe_trainer.snapshots.layout import FINGERPRINTS, Document, read_documents, read_record
from moe_trainer.storage.files import read_file, replace_file

#: Documents are drawn for more bytes than a run will read, by this factor, to make up for those that are left out.
SPARE = 1.1


class Seen(Format):
    """How much of the pool's registry a run takes into account."""

    registry_bytes: int


class Replay:
    """The documents to replay; after they were read, ``excluded`` counts those that were left out."""

    def __init__(
        self, own: Path, ancestry: Sequence[Path], store: Path, registry: str, until: int, size: float
    ) -> None:
        """Take verified snapshots, and the registry in the store; ``size`` bytes of text are drawn from ``ancestry``."""
        self.excluded: Counter[str] = Counter()
        self._own, self._ancestry = own, ancestry
        self._store, self._registry, self._until = store, registry, until
        there = sum(read_record(snapshot).train_bytes for snapshot in ancestry)
        self._share = min(1.0, SPARE * size / max(1, there))

    def documents(self) -> Iterator[Document]:
        """Yield the documents, each once."""
        left_out = self._left_out()
        seen: set[str] = set()
        for snapshot in self._ancestry:
            for document in read_documents(snapshot):
                name = document.name()
                if not self._drawn(name) or name in seen:
                    continue
                seen.add(name)
                if name not in left_out:
                    yield document

    def _left_out(self) -> frozenset[str]:
        """Return the names of the drawn documents that must not be replayed."""
        with Catalogue() as catalogue:
            for snapshot in self._ancestry:
                prints = read_fingerprints(snapshot, FINGERPRINTS)
                take_up(catalogue, (entry for entry in prints if self._drawn(entry.document)))
            drawn = len(catalogue)
            take_up(catalogue, read_registry(self._store, self._registry, self._until))
            rows = np.arange(len(catalogue))
            held_out = Resembling(rows >= drawn)
            search(catalogue, rows, THRESHOLD, held_out)
            names = catalogue.names[:drawn]
            own = np.isin(names, names_in(read_fingerprints(self._own, FINGERPRINTS)))
            found = held_out.found[:drawn]
            self.excluded["heldOutElsewhere"] = len(np.unique(names[found]))
            self.excluded["inOwnData"] = len(np.unique(names[own & ~found]))
            return frozenset(digits_of(names[found | own]))

    def _drawn(self, name: str) -> bool:
        return is_drawn("replay", name, self._share)


def is_drawn(what: str, name: str, share: float) -> bool:
    """Return whether a document is among those that are drawn: about that share of all, always the same ones."""
    number = int.from_bytes(hashlib.sha256(f"{what} {name}".encode()).digest()[:8], "big")
    return number < share * 2.0**64


def registry_seen(root: Path, path: str, registry: str) -> int:
    """Return how many bytes of the registry a run takes into account: its size when the run first asked.

    The number is kept in ``path``, so that later attempts leave out the same documents.
    """
    try:
        text = read_file(root, path, limits.CONFIG_BYTES)
    except FileNotFoundError:
        size = registry_bytes(root, registry)
        text = Seen(registry_bytes=size).to_json().encode()
        replace_file(root, path, text)
    return Seen.model_validate_json(text).registry_bytes
