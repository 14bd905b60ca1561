"""The byte-unigram model: the least that a model trained from nothing must beat. Imports no torch."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from moe_trainer.evaluation.matrix import Cell, CellKey
from moe_trainer.evaluation.segments import Segment


def fit(texts: Iterable[str]) -> list[float]:
    """Return the negative log-likelihood, in nats, of each of the 256 bytes; add-one smoothing."""
    counts = np.ones(256)
    for text in texts:
        counts += np.bincount(np.frombuffer(text.encode(), dtype=np.uint8), minlength=256)
    return [float(nats) for nats in -np.log(counts / counts.sum())]


def score(nats_of_byte: Sequence[float], segments: Sequence[Segment], key: CellKey) -> Cell:
    """Return the unigram's cell on a holdout's segments."""
    likeliest = min(range(256), key=lambda byte: nats_of_byte[byte])
    return Cell(
        key=key,
        clusters=tuple(segment.cluster for segment in segments),
        sizes=tuple(len(segment.text) for segment in segments),
        nats=tuple(math.fsum(nats_of_byte[byte] for byte in segment.text) for segment in segments),
        hits=tuple(segment.text.count(likeliest) for segment in segments),
        context_nats=tuple(math.fsum(nats_of_byte[byte] for byte in segment.context) for segment in segments),
    )
