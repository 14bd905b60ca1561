"""What the table of the Distilled strategy is fitted to and judged on.

    prompts from training text    pieces of each domain's training side, labelled with the domain's Expert
    held-out segments             labelled by which Experts code them best; also what routes are judged on

Shape suffixes: S segments, E Experts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from moe_formats.failure import JobError
from moe_formats.format import Format
from moe_formats.job_config import DistillJob, HoldoutRef
from moe_formats.job_report import Interval
from moe_formats.routing_policy import Familiar
from moe_formats.segment_size import CONTEXT_BYTES
from moe_trainer.distilling.ngram_model import Prompts, softmax
from moe_trainer.evaluation.matrix import DEVICES, Array, Cell, Matrix
from moe_trainer.evaluation.scores import Absent, interval
from moe_trainer.evaluation.segments import cut
from moe_trainer.snapshots.layout import read_documents
from moe_trainer.statistics.bootstrap import Ratio, bootstrap, seed_of
from moe_trainer.statistics.clustered import Clustered
from moe_trainer.storage.committed import opened

#: Prompts that are cut from the training text of one Expert.
TEXT_PROMPTS = 3000


#: Number of parts that clusters are divided into: each is judged by a model that was refined on the others.
FOLDS = 5


#: If an Expert codes a segment this many nats worse than another, its share of the label is smaller by a factor of e.
#: For segments longer than LABEL_BYTES the number grows in proportion; otherwise the labels of long segments would
#: separate Experts that are equally good.
LABEL_NATS = 4.0


LABEL_BYTES = 256


class Route(Format):
    """What one way of routing costs on the judged segments."""

    bits_per_byte: float = Field(
        description="Bits per byte of the segments, each coded by the Expert that it is routed to."
    )
    against_oracle: Interval | None = Field(
        default=None, description="The same divided by the oracle's bits per byte; 1 is the best possible."
    )
    absent: str | None = Field(default=None, description="Why against_oracle is absent.")
    accuracy: float | None = Field(
        default=None, description="Share of the segments that are routed to the Expert that codes them best."
    )
    temperature: float | None = Field(
        default=None,
        description="The logits are divided by it, so that the probabilities are calibrated; fitted by likelihood.",
    )


@dataclass(frozen=True)
class Segments:
    """Held-out segments that every Expert of the roster was scored on.

    Attributes:
        contexts: the bytes before each segment, which stand for a prompt.
        sizes_S: the number of bytes of each segment.
        nats_SE: the negative log-likelihood of each segment under each Expert.
        context_nats_SE: the same for each context.
        clusters: the cluster of near-duplicate documents of each segment.

    """

    contexts: Sequence[bytes]
    sizes_S: Array
    nats_SE: Array
    context_nats_SE: Array
    clusters: Sequence[str]

    @property
    def folds_S(self) -> npt.NDArray[np.intp]:
        """The part, 0 to FOLDS - 1, that each segment's cluster belongs to."""
        return np.array([seed_of("fold", cluster) % FOLDS for cluster in self.clusters])

    @property
    def labels_SE(self) -> Array:
        """How probable each Expert should be for each segment: one that is nearly as good as the best is nearly as probable."""
        nats_S = LABEL_NATS * np.maximum(1.0, self.sizes_S / LABEL_BYTES)
        return softmax(-self.nats_SE / nats_S[:, None])

    def route(self, choice_S: npt.NDArray[np.intp], temperature: float | None = None) -> Route:
        """Return what it costs to route each segment to the Expert chosen for it."""
        chosen_S = self.nats_SE[np.arange(len(choice_S)), choice_S]
        right = float((chosen_S == self.nats_SE.min(axis=1)).mean())
        return self._route(chosen_S).model_copy(update={"accuracy": right, "temperature": temperature})

    def random_route(self) -> Route:
        """Return what it costs on average to choose an Expert at random."""
        return self._route(self.nats_SE.mean(axis=1))

    def familiar(self, probabilities_SE: Array) -> Familiar:
        """Return what 95 % of the contexts keep to, routed by these cross-fitted probabilities of the table."""
        bytes_S = np.array([len(context) for context in self.contexts], dtype=float)
        bits_S = self.context_nats_SE.min(axis=1) / math.log(2) / np.maximum(bytes_S, 1)
        return Familiar(
            bits_per_byte=float(np.quantile(bits_S[bytes_S > 0], 0.95)) if (bytes_S > 0).any() else None,
            confidence=float(np.quantile(probabilities_SE.max(axis=1), 0.05)),
        )

    def _route(self, nats_S: Array) -> Route:
        spent = Clustered.of(nats_S, self.clusters).sums_G
        best = Clustered.of(self.nats_SE.min(axis=1), self.clusters).sums_G
        bits = float(nats_S.sum() / math.log(2) / self.sizes_S.sum())
        try:
            against = interval(bootstrap(Ratio(spent, best), seed=seed_of("route", *self.clusters)))
        except Absent as reason:  # for example, the route agrees with the oracle on nearly all clusters
            return Route(bits_per_byte=bits, absent=str(reason))
        return Route(bits_per_byte=bits, against_oracle=against)


def _column(job: DistillJob, holdout: HoldoutRef, root: Path) -> list[Cell]:
    """Return the cells of all revisions on one holdout, of the same device class; empty if no class has them all."""
    for device in DEVICES:
        matrix = Matrix(root, job.pool_uid, job.segment_bytes, device)
        cells = [matrix.read(matrix.key(revision, holdout)) for revision in job.roster]
        if all(cells):
            return [cell for cell in cells if cell]
    return []


def read_segments(job: DistillJob, root: Path) -> tuple[Segments, list[str]]:
    """Return the segments of the holdouts that every Expert was scored on, and the names of the other holdouts."""
    complete: list[tuple[HoldoutRef, list[Cell]]] = []
    left_out = []
    for holdout in job.suite:
        column = _column(job, holdout, root)
        if column:
            complete.append((holdout, column))
        else:
            left_out.append(holdout.expert)
    if not complete:
        raise JobError(
            "CellsMissing",
            f"no holdout of the suite ({', '.join(left_out) or 'which is empty'}) was scored with all of "
            f"{', '.join(revision.revision for revision in job.roster)}. Evaluate those revisions first.",
        )
    contexts, clusters = [], []
    kept = []
    for holdout, cells in complete:
        unreadable = {number for cell in cells for number in cell.unreadable}
        with opened(root, holdout.path, holdout.digest) as folder:
            segments = cut(read_documents(folder), job.segment_bytes)
        for number, segment in enumerate(segments):
            kept.append(number not in unreadable)
            if kept[-1]:
                contexts.append(segment.context)
                clusters.append(f"{holdout.digest} {segment.cluster}")
    sizes_S = np.concatenate([cells[0].sizes_S for _, cells in complete])
    nats_SE = np.concatenate([np.stack([cell.nats_S for cell in cells], axis=1) for _, cells in complete])
    context_nats_SE = np.concatenate(
        [np.stack([cell.context_nats for cell in cells], axis=1) for _, cells in complete]
    )
    return Segments(
        contexts=contexts,
        sizes_S=sizes_S[kept],
        nats_SE=nats_SE[kept],
        context_nats_SE=context_nats_SE[kept],
        clusters=clusters,
    ), left_out


def prompts_from_text(job: DistillJob, root: Path) -> Prompts:
    """Return prompts cut from the training side of each domain, labelled with the domain's Expert.

    An Expert without a domain contributes none: its text is a mixture of the others'.
    """
    texts: list[bytes] = []
    labels: list[int] = []
    for place, (expert, revision) in enumerate(zip(job.experts, job.roster, strict=True)):
        if expert.domain is None or not revision.ancestry:
            continue
        with opened(root, revision.ancestry[-1].path) as own:
            documents = [document.text.encode() for document in read_documents(own)]
        drawn = _draw_prompts(
            documents, np.random.default_rng(seed_of("prompts", revision.ancestry[-1].digest))
        )
        texts.extend(drawn)
        labels.extend([place] * len(drawn))
    return Prompts.of(texts, np.eye(len(job.roster))[np.array(labels, dtype=np.intp)])


def _draw_prompts(documents: Sequence[bytes], generator: np.random.Generator) -> list[bytes]:
    """Return pieces of documents, half to twice as long as the usual prompt; each byte is equally likely as the start."""
    ends_D = np.cumsum([len(document) for document in documents])
    prompts = []
    for at in generator.integers(0, ends_D[-1], TEXT_PROMPTS):
        document = int(np.searchsorted(ends_D, at, side="right"))
        start = int(at) - int(ends_D[document]) + len(documents[document])
        length = int(generator.integers(CONTEXT_BYTES // 2, 2 * CONTEXT_BYTES))
        prompts.append(documents[document][start : start + length])
    return prompts
