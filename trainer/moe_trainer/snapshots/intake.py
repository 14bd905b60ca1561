"""The documents of all sources: their content in a scratch file, everything else in columns.

Reading, filtering and signing run at the same time in several processes. In memory are about 30 bytes per document,
besides the 48 of the catalogue; text and signatures are on disk, and nothing else grows with the data.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moe_formats.data_scheme import FIRST, Scheme
from moe_formats.job_config import Filter, SnapshotJob, Source
from moe_trainer.deduplication.catalogue import Catalogue, Names, Rows, names_of
from moe_trainer.deduplication.minhash import Signatures, signatures
from moe_trainer.deduplication.near_duplicates import Mask
from moe_trainer.deduplication.sorting import in_ranges, leading
from moe_trainer.environment import Environment
from moe_trainer.snapshots import filters
from moe_trainer.snapshots.filters import dropped_by, within
from moe_trainer.snapshots.splitting import without_near_duplicates
from moe_trainer.snapshots.surprise import FITTED_BYTES, SurpriseModel
from moe_trainer.snapshots.workers import Workers
from moe_trainer.sources.documents import SourceCount, read_source
from moe_trainer.sources.files import files_of
from moe_trainer.text.content import Content
from moe_trainer.text.normal_form import comparable, is_comparable

#: Most documents, and bytes of them, that are scored at once.
_SCORED_AT_ONCE = 256
_SCORED_BYTES = 4 << 20


#: Most characters of text in a batch.
BATCH_CHARACTERS = 256 * 1024


#: Most documents in a batch.
BATCH_DOCUMENTS = 2048


@dataclass(frozen=True)
class Signed:
    """The documents of a batch that no filter dropped."""

    names: Names
    signatures: Signatures
    lines: list[bytes]  #: Each content as JSON, with a newline.
    sizes: list[int]  #: UTF-8 bytes of each text.
    dropped: Counter[str]


class Intake:
    """Everything that was read: one row of the catalogue per document, in reading order; ``kept`` are the rows in use."""

    def __init__(self, scratch: Path, scheme: Scheme) -> None:
        self.scheme = scheme
        self._texts = scratch / "documents.jsonl"
        self.catalogue = Catalogue(scratch)
        self.dropped: Counter[str] = Counter()
        self.counts: list[SourceCount] = []
        self.kept: Rows = np.empty(0, dtype=np.int64)
        self.sizes: NDArray[np.int32] = np.empty(0, dtype=np.int32)  #: UTF-8 bytes of each text.
        self.sources: NDArray[np.int16] = np.empty(
            0, dtype=np.int16
        )  #: The number of each document's source.
        self._offsets: Rows = self.kept

    @property
    def names(self) -> Names:
        """A copy of the names of the rows that are kept."""
        return self.catalogue.names[self.kept]

    def lines(self, wanted: Mask) -> Iterator[tuple[int, bytes]]:
        """Yield (row, content as a line of JSON) for the wanted rows, in reading order."""
        with self._texts.open("rb") as file:
            for row, (line, want) in enumerate(zip(file, wanted, strict=True)):
                if want:
                    yield row, line

    def lines_of(self, rows: Rows) -> Iterator[bytes]:
        """Yield the contents of rows as lines of JSON, in the order of ``rows``."""
        with self._texts.open("rb") as file:
            for offset in self._offsets[rows].tolist():
                file.seek(offset)
                yield file.readline()

    def read(self, job: SnapshotJob, environment: Environment) -> None:
        """Read every source, drop unusable, filtered and duplicate documents, and sign the rest."""
        sizes, sources, offsets, end = (
            array("i"),
            array("h"),
            array("q"),
            0,
        )  # lists would take ten times the memory
        work = partial(sign, self.scheme, job.filters)
        with self._texts.open("wb") as file, Workers(work, environment.threads) as workers:
            for number, source in enumerate(job.sources):
                for signed in self._signed(source, environment, workers):
                    self.catalogue.append(signed.names, signed.signatures)
                    file.writelines(signed.lines)
                    ends = list(accumulate(map(len, signed.lines), initial=end))
                    offsets.extend(ends[:-1])
                    end = ends[-1]
                    sizes.extend(signed.sizes)
                    sources.extend([number] * len(signed.sizes))
                    self.dropped.update(signed.dropped)
        self._offsets = np.frombuffer(offsets, dtype=np.int64)
        self.sizes = np.frombuffer(sizes, dtype=np.int32)
        self.sources = np.frombuffer(sources, dtype=np.int16)
        self.kept = np.arange(len(self.catalogue))
        self._keep(_first_of_each(self.catalogue.names), "duplicate")
        band = filters.surprise_band(job.filters)
        if band is not None:
            self._keep(self._within(band, environment.threads), "perplexity")
        threshold = filters.near_duplicate_threshold(job.filters)
        if threshold is not None:
            self._keep(without_near_duplicates(self.catalogue, self.kept, threshold), "nearDuplicate")

    def _signed(
        self, source: Source, environment: Environment, workers: Workers[list[Content], Signed]
    ) -> Iterator[Signed]:
        count = SourceCount(source, self.scheme)
        yield from workers.map(in_batches(read_source(files_of(source.root, environment), count)))
        count.check()
        self.counts.append(count)
        self.dropped.update(count.dropped)
        print(f"{source.root}/{source.path}: {count.files} files, {count.documents} documents", flush=True)
        for name, number in count.passed_over.items():
            print(f"  the field {name!r} of {number} messages is not read", flush=True)

    def _within(self, band: Filter, processes: int) -> Rows:
        """Return the rows whose surprise is within the filter's bounds."""
        by_name = self.kept[np.argsort(self.names)]
        fitted = by_name[np.cumsum(self.sizes[by_name]) <= FITTED_BYTES]
        model = SurpriseModel.fitted(text_of(line) for line in self.lines_of(fitted))
        is_fitted = np.isin(self.kept, fitted)
        wanted = np.zeros(len(self.catalogue), dtype=np.bool_)
        wanted[self.kept] = True
        lines = (line for _, line in self.lines(wanted))
        batches = batches_of_lines(zip(lines, is_fitted.tolist(), strict=True))
        with Workers(partial(_surprises, model), processes) as workers:
            inside = (within(band, bits) for values in workers.map(batches) for bits in values)
            return self.kept[np.fromiter(inside, dtype=np.bool_, count=len(self.kept))]

    def _keep(self, rows: Rows, reason: str) -> None:
        """Keep only these rows, and count the others as dropped for a reason."""
        if dropped := len(self.kept) - len(rows):
            self.dropped[reason] += dropped
        self.kept = rows


def text_of(line: bytes) -> bytes:
    """Return the text of a document's content, given as a line of JSON."""
    return Content.model_validate_json(line).text.encode()


def batches_of_lines(lines: Iterable[tuple[bytes, bool]]) -> Iterator[list[tuple[bytes, bool]]]:
    """Yield lines, each with what belongs to it, in batches that are bounded in number and in size."""
    batch: list[tuple[bytes, bool]] = []
    size = 0
    for line, fitted in lines:
        batch.append((line, fitted))
        size += len(line)
        if size >= _SCORED_BYTES or len(batch) == _SCORED_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _surprises(model: SurpriseModel, batch: list[tuple[bytes, bool]]) -> list[float]:
    return [model.bits_per_byte(text_of(line), fitted=fitted) for line, fitted in batch]


def _first_of_each(names: Names) -> Rows:
    """Return the first row of each name, ascending."""
    first = np.zeros(len(names), dtype=np.bool_)
    for part in in_ranges(leading(names)):
        first[part[np.unique(names[part], return_index=True)[1]]] = True
    return np.flatnonzero(first)


def sign(scheme: Scheme, filters: Sequence[Filter], contents: Sequence[Content]) -> Signed:
    """Filter, name and sign the documents of a batch."""
    reasons = [
        dropped_by(filters, content.text) if scheme == FIRST or is_comparable(content.text) else "tooLarge"
        for content in contents
    ]
    kept = [content for content, reason in zip(contents, reasons, strict=True) if reason is None]
    signed = str if scheme == FIRST else comparable
    return Signed(
        names=names_of([content.name() for content in kept]),
        signatures=signatures([signed(content.text) for content in kept]),
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
