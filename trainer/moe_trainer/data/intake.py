"""The documents of all sources: what they say in a scratch file, the rest in columns.

Reading, filtering and signing go on at the same time in several processes. In memory are some 40 bytes a
document; text and signatures are on disk, so memory does not depend on how much there is to read.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from moe_trainer.data import filters
from moe_trainer.data.catalogue import Catalogue, Names, Rows
from moe_trainer.data.content import Content
from moe_trainer.data.near_duplicates import Mask
from moe_trainer.data.roots import files_of
from moe_trainer.data.signing import Signed, in_batches, sign
from moe_trainer.data.sources import SourceCount, read_source
from moe_trainer.data.splitting import without_near_duplicates
from moe_trainer.data.workers import Workers
from moe_trainer.environment import Environment
from moe_trainer.job_config import SnapshotJob, Source


class Intake:
    """What was read, one row of the catalogue a document, in reading order; ``kept`` are those to go on with."""

    def __init__(self, scratch: Path) -> None:
        self._texts = scratch / "documents.jsonl"
        self.catalogue = Catalogue((scratch / "signatures").open("w+b"))
        self.dropped: Counter[str] = Counter()
        self.counts: list[SourceCount] = []
        self.kept: Rows = np.empty(0, dtype=np.int64)
        self.sizes: Rows = self.kept  #: UTF-8 bytes of each text.
        self.sources: Rows = self.kept  #: The number of each document's source.
        self._offsets: Rows = self.kept

    @property
    def names(self) -> Names:
        """The names of what is kept."""
        return self.catalogue.names[self.kept]

    def lines(self, wanted: Mask) -> Iterator[tuple[int, bytes]]:
        """Yield (row, content as a line of JSON) of the wanted rows, in reading order."""
        with self._texts.open("rb") as file:
            for row, (line, want) in enumerate(zip(file, wanted.tolist(), strict=True)):
                if want:
                    yield row, line

    def lines_of(self, rows: Rows) -> Iterator[bytes]:
        """Yield the contents of rows as lines of JSON, in the order of ``rows``."""
        with self._texts.open("rb") as file:
            for offset in self._offsets[rows].tolist():
                file.seek(offset)
                yield file.readline()

    def read(self, job: SnapshotJob, environment: Environment) -> None:
        """Read every source; drop what its files, filters and exact duplicates say, and sign the rest."""
        sizes: list[int] = []
        lengths: list[int] = []
        sources: list[int] = []
        work = partial(sign, job.filters)
        with self._texts.open("wb") as file, Workers(work, environment.threads) as workers:
            for number, source in enumerate(job.sources):
                for signed in self._signed(source, environment, workers):
                    self.catalogue.append(signed.names, signed.signatures)
                    file.writelines(signed.lines)
                    lengths += map(len, signed.lines)
                    sizes += signed.sizes
                    sources += [number] * len(signed.sizes)
                    self.dropped.update(signed.dropped)
        self._offsets = np.cumsum([0, *lengths])[:-1]
        self.sizes, self.sources = np.array(sizes, dtype=np.int64), np.array(sources, dtype=np.int64)
        self.kept = _first_of_each(self.catalogue.names)
        self._count("duplicate", len(self.catalogue) - len(self.kept))
        threshold = filters.near_duplicate_threshold(job.filters)
        if threshold is not None:
            kept = without_near_duplicates(self.catalogue, self.kept, threshold)
            self._count("nearDuplicate", len(self.kept) - len(kept))
            self.kept = kept

    def _signed(
        self, source: Source, environment: Environment, workers: Workers[list[Content], Signed]
    ) -> Iterator[Signed]:
        count = SourceCount(source)
        yield from workers.map(in_batches(read_source(files_of(source.root, environment), count)))
        count.check()
        self.counts.append(count)
        self.dropped.update(count.dropped)
        print(f"{source.root}/{source.path}: {count.files} files, {count.documents} documents", flush=True)

    def _count(self, reason: str, number: int) -> None:
        if number:
            self.dropped[reason] += number


def _first_of_each(names: Names) -> Rows:
    """Return the first row of each name, ascending."""
    return np.sort(np.unique(names, return_index=True)[1])
