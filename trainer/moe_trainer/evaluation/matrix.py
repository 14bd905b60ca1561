"""The specialization matrix in the store: a cell has one artefact's scores on one holdout, segment by segment.

A cell is identified by (artefact, holdout, scorer version, device class), and its content never changes. So it is
computed once and shared by all comparisons, scores and tables that need it. The byte-unigram model at the end is the
least that a model trained from nothing must beat. Imports no torch.

Shape suffix: S segments, in the order in which `segments.cut` gives them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from moe_formats import store
from moe_formats.format import Digest, Format
from moe_formats.job_config import ArtefactRef, HoldoutRef
from moe_formats.segment_size import SegmentBytes
from moe_trainer.evaluation.segments import Segment, scorer_version
from moe_trainer.storage.cells import read_cell, write_cell

Array = npt.NDArray[np.float64]

#: The device classes on which models are scored.
DEVICES = ("cpu", "cuda")


class CellKey(Format):
    """What a cell's scores depend on, and nothing else."""

    artefact: Digest
    holdout: Digest
    scorer: str = Field(description="Version of segments and scoring, which includes the size of segments.")
    device: str = Field(default="cpu", description="Device class; scores of different classes are not mixed.")


class Cell(Format):
    """Scores of one artefact on one holdout. All lists have one entry per segment, in the same order."""

    key: CellKey
    clusters: tuple[str, ...] = Field(description="Near-duplicate cluster of the segment's document.")
    sizes: tuple[int, ...] = Field(description="UTF-8 bytes of the segment.")
    nats: tuple[float, ...] = Field(description="Negative log-likelihood of the segment, given its context.")
    hits: tuple[int, ...] = Field(
        description="Number of the segment's bytes that the model found most likely."
    )
    context_nats: tuple[float, ...] = Field(description="Negative log-likelihood of the context alone.")
    unreadable: tuple[int, ...] = Field(
        default=(),
        description="Numbers of the segments that the model's tokenizer does not reproduce: they have no score, and "
        "are left out of every comparison.",
    )

    @property
    def nats_S(self) -> Array:
        """Negative log-likelihoods in nats, as an array."""
        return np.asarray(self.nats)

    @property
    def sizes_S(self) -> Array:
        """Lengths in bytes, as an array."""
        return np.asarray(self.sizes, dtype=np.float64)


@dataclass(frozen=True)
class Matrix:
    """The cells of one pool, in its store."""

    store: Path
    pool_uid: str
    segment_bytes: SegmentBytes
    device: str = "cpu"

    def key(self, artefact: ArtefactRef, holdout: HoldoutRef) -> CellKey:
        """Return the identity of a cell."""
        return CellKey(
            artefact=artefact.digest,
            holdout=holdout.digest,
            scorer=scorer_version(self.segment_bytes),
            device=self.device,
        )

    def read(self, key: CellKey) -> Cell | None:
        """Return a cell, or None if it was never written or is damaged, so that it must be filled again."""
        cell = read_cell(self.store, self._path(key), Cell)
        return cell if cell is not None and cell.key == key else None

    def write(self, cell: Cell) -> None:
        """Keep a cell. A kill at any moment leaves it whole or absent."""
        write_cell(self.store, self._path(cell.key), cell)

    def _path(self, key: CellKey) -> str:
        return f"{store.cells(self.pool_uid)}/{store.short(key.content_digest())}.json"


def unigram_nats(texts: Iterable[str]) -> list[float]:
    """Return the negative log-likelihood, in nats, of each of the 256 bytes in some texts, with add-one smoothing."""
    counts = np.ones(256)
    for text in texts:
        counts += np.bincount(np.frombuffer(text.encode(), dtype=np.uint8), minlength=256)
    return [float(nats) for nats in -np.log(counts / counts.sum())]


def unigram_cell(nats_of_byte: Sequence[float], segments: Sequence[Segment], key: CellKey) -> Cell:
    """Return the cell of a byte-unigram model on a holdout's segments."""
    likeliest = min(range(256), key=lambda byte: nats_of_byte[byte])
    return Cell(
        key=key,
        clusters=tuple(segment.cluster for segment in segments),
        sizes=tuple(len(segment.text) for segment in segments),
        nats=tuple(math.fsum(nats_of_byte[byte] for byte in segment.text) for segment in segments),
        hits=tuple(segment.text.count(likeliest) for segment in segments),
        context_nats=tuple(math.fsum(nats_of_byte[byte] for byte in segment.context) for segment in segments),
    )
