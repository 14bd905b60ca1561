"""The small model: how often each byte follows each other byte. It stands for artefacts, scorer and generation.

Shapes: P previous byte, B byte; 256 each.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moe_formats.format import Digest
from moe_trainer.evaluation.matrix import Cell, CellKey
from moe_trainer.evaluation.segments import Segment
from moe_trainer.evaluators.tasks import Completion
from moe_trainer.storage.committed import verify
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.manifest import read_manifest
from moe_trainer.text.tokenizer import ByteTokenizer

Counts = npt.NDArray[np.float64]

WEIGHTS = "weights.npy"
REPORT = "report.json"
#: Weight of a parent's counts beside those of the own text.
OF_PARENT = 0.02


def pairs_PB(text: bytes) -> Counts:
    """Return how often each byte follows each other byte in a text."""
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64)
    return np.bincount(codes[:-1] * 256 + codes[1:], minlength=65536).reshape(256, 256).astype(np.float64)


def write(folder: Path, counts_PB: Counts, report: str) -> Digest:
    """Commit an artefact and return its digest.

    It has the tokenizer of a preset, as the real one has: snapshots try held-out text with it.
    """
    with new_folder(folder.parent, folder.name, "artefact") as working:
        ByteTokenizer().save(working)
        np.save(working / WEIGHTS, counts_PB, allow_pickle=False)
        (working / REPORT).write_text(report)
    return read_manifest(folder.parent, folder.name)[1]


def load(folder: Path, digest: Digest | None) -> tuple[Counts, None]:
    """Return the counts, and no tokenizer; raises JobError (ArtefactCorrupt)."""
    verify(folder.parent, folder.name, digest)
    return np.load(folder / WEIGHTS, allow_pickle=False), None


def use_device(_: int) -> str:
    """Say what there is."""
    return "cpu"


def complete(
    counts_PB: Counts, _tokenizer: None, prompts: Sequence[str], max_tokens: int, _stop: Sequence[str]
) -> list[Completion]:
    """Return the most frequent bytes after each prompt."""

    def one(prompt: str) -> str:
        text = prompt.encode()
        for _ in range(max_tokens):
            text += bytes([int(counts_PB[text[-1]].argmax())])
        return text[len(prompt.encode()) :].decode(errors="replace")

    return [Completion(one(prompt), cut=True) for prompt in prompts]


def score(counts_PB: Counts, _tokenizer: None, segments: Sequence[Segment], key: CellKey) -> Cell:
    """Return the model's cell on a holdout's segments."""
    unigram_B = counts_PB.sum(0) + 1.0
    smoothed_PB = counts_PB + 4.0 * unigram_B / unigram_B.sum()
    nats_PB = -np.log(smoothed_PB / smoothed_PB.sum(1, keepdims=True))
    likeliest_P = smoothed_PB.argmax(1)

    def nats(text: bytes) -> float:
        return float((pairs_PB(text) * nats_PB).sum())

    def hits(text: bytes) -> int:
        codes = np.frombuffer(text, dtype=np.uint8)
        return int((likeliest_P[codes[:-1]] == codes[1:]).sum())

    def one(segment: Segment) -> tuple[float, int, float]:
        text = (segment.context[-1:] or b"\n") + segment.text
        return nats(text), hits(text), nats(b"\n" + segment.context)

    scored = [one(segment) for segment in segments]
    assert all(math.isfinite(value) for value, _, _ in scored)
    return Cell(
        key=key,
        clusters=tuple(segment.cluster for segment in segments),
        sizes=tuple(len(segment.text) for segment in segments),
        nats=tuple(value for value, _, _ in scored),
        hits=tuple(right for _, right, _ in scored),
        context_nats=tuple(before for _, _, before in scored),
    )
