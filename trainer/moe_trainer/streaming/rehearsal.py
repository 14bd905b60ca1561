"""Rehearsal: an Expert whose text has drifted learns what is new, with text of its first snapshot mixed in.

New is what a snapshot has and two earlier ones do not have: the first, whose text is rehearsed, and the last one that
the parent was trained on before the drift. Documents are told apart by their names, which are digests of their
contents. By a hash of their names, as many documents are drawn to be rehearsed as the run will read. Those that every run keeps
apart for validation stay apart.

Nothing has to be left out for the pool's held-out text, as with replay: the parent was trained on all that is rehearsed,
and evaluation drops what an ancestor has seen.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from moe_formats.failure import JobError
from moe_trainer.deduplication.catalogue import digits_of
from moe_trainer.deduplication.fingerprints import names_in, read_fingerprints
from moe_trainer.snapshots.layout import FINGERPRINTS, Document, read_documents, read_record
from moe_trainer.streaming.replay import SPARE, is_drawn
from moe_trainer.streaming.tokens import validates


class Rehearsal:
    """What is new in a snapshot, and the documents to rehearse with it."""

    def __init__(self, data: Path, first: Path, known: Path, size: float) -> None:
        """Take verified snapshots; ``size`` bytes of text are drawn from ``first``.

        Raises JobError (DataEmpty) if ``data`` has nothing new.
        """
        self._data, self._first = data, first
        self._share = min(1.0, SPARE * size / max(1, read_record(first).train_bytes))
        names, *earlier = (
            names_in(read_fingerprints(folder, FINGERPRINTS)) for folder in (data, first, known)
        )
        new = names[~np.isin(names, np.concatenate(earlier))]
        if not len(new):
            raise JobError(
                "DataEmpty",
                f"rehearsal: all {len(names)} documents of the snapshot are in the Expert's earlier snapshots too, so there is "
                "no new text to train on: add data.",
            )
        self._new = frozenset(digits_of(new))

    def new_documents(self) -> Iterator[Document]:
        """Yield the documents that are new, in their order."""
        return (document for document in read_documents(self._data) if document.name() in self._new)

    def sources(self) -> frozenset[int | None]:
        """Return the numbers of the sources that have new documents; only None where sources have no weights."""
        return frozenset(document.source for document in self.new_documents())

    def documents(self) -> Iterator[Document]:
        """Yield the documents to rehearse, each once."""
        for document in read_documents(self._first):
            if is_drawn("rehearsal", document.name(), self._share) and not validates(document):
                yield document
