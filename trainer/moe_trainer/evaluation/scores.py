"""Computes scores and differences from cells of the matrix; docs/concepts.md defines each of them.

Every function takes cells of one holdout, restricted to clean segments, and returns an Interval or raises Absent with the
reason. Imports no torch.

Shape suffix: S segments.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from moe_formats.job_config import MAX_USES, MIN_CLUSTERS
from moe_formats.job_report import Change, Decision, Interval
from moe_trainer.evaluation.matrix import Array, Cell
from moe_trainer.statistics.bootstrap import TAIL, Bootstrap, Ratio, bootstrap, seed_of
from moe_trainer.statistics.clustered import Clustered
from moe_trainer.statistics.superiority import superiority

Score = TypeVar("Score")

#: Enough for two dozen pivots beyond alpha at the fifth use of a window (0.0012).
DECISION_RESAMPLES = 20_000

#: The smallest difference of ln(b) that counts: 0.5 %.
SMALLEST_DELTA = 0.005


class Absent(Exception):
    """A score cannot be computed; the text starts with a CamelCase reason."""


class Absences:
    """The reasons why scores could not be computed, by the scores' names."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def note(self, name: str, compute: Callable[[], Score]) -> Score | None:
        """Return the score, or None after recording why it is absent."""
        try:
            return compute()
        except Absent as reason:
            self.reasons[name] = str(reason)
            return None


@dataclass(frozen=True)
class Scored:
    """One model's scores on the clean segments of one holdout.

    Attributes:
        nats_S: negative log-likelihood of each segment.
        sizes_S: its UTF-8 bytes.
        hits_S: its bytes that the model found most likely.
        clusters: its cluster of near-duplicate documents.
        unreadable: the number of segments that were left out because some model's tokenizer does not give them back.
        label: identifies the pair (model, holdout); seeds the bootstrap.

    """

    nats_S: Array
    sizes_S: Array
    hits_S: Array
    clusters: Sequence[str]
    label: str
    unreadable: int = 0

    @classmethod
    def clean(cls, cell: Cell, tainted: frozenset[str], unreadable: frozenset[int] = frozenset()) -> "Scored":
        """Return a cell without clusters that some model was trained on, and without segments that some model cannot read."""
        keep_S = [
            i
            for i, cluster in enumerate(cell.clusters)
            if cluster not in tainted and i not in unreadable and i not in cell.unreadable
        ]
        return cls(
            nats_S=cell.nats_S[keep_S],
            sizes_S=cell.sizes_S[keep_S],
            hits_S=np.asarray(cell.hits, dtype=np.float64)[keep_S],
            clusters=[cell.clusters[i] for i in keep_S],
            label=f"{cell.key.artefact} {cell.key.holdout} {cell.key.scorer} {cell.key.device}",
            unreadable=len(unreadable.union(cell.unreadable)),
        )

    def per_cluster(self, values_S: Array) -> Clustered:
        """Group values of the segments by cluster; raises Absent (HoldoutTooSmall) below 20 clusters."""
        grouped = Clustered.of(values_S, self.clusters)
        if grouped.clusters < MIN_CLUSTERS:
            but = (
                f"; {self.unreadable} segments are left out because a model's tokenizer does not give their text back as it is: "
                "convert the sources to the form that it gives back, such as Unicode's NFC"
            )
            raise Absent(
                f"HoldoutTooSmall: {grouped.clusters} clean clusters are held out; {MIN_CLUSTERS} are needed"
                + (but if self.unreadable else "")
            )
        return grouped


def bits_per_byte(model: Scored) -> Interval:
    """Return Σ nats / (ln 2 · Σ bytes)."""
    return interval(bootstrap(_per_byte(model, model.nats_S / math.log(2)), seed=_seed("bpb", model)))


def next_byte_accuracy(model: Scored) -> Interval:
    """Return the share of bytes that were the model's most likely next byte."""
    found = bootstrap(_per_byte(model, model.hits_S), seed=_seed("nextByteAccuracy", model))
    # A share lies between 0 and 1, however far a pivot reaches where nearly all clusters agree.
    return Interval(
        value=found.estimate,
        lower=max(found.lower(TAIL), 0.0),
        upper=min(found.upper(TAIL), 1.0),
        clusters=found.clusters,
    )


def log_ratios(numerator: Scored, denominator: Scored) -> Array:
    """Return ln(b_numerator / b_denominator) of each segment; the bytes cancel.

    Raises ValueError if the two were not scored on the same segments.
    """
    if numerator.clusters != denominator.clusters or not np.array_equal(
        numerator.sizes_S, denominator.sizes_S
    ):
        raise ValueError(f"not the same segments: {numerator.label} and {denominator.label}")
    # With 0 nats a segment would be infinitely better, so at least a millionth of a nat is assumed.
    return np.log(np.maximum(numerator.nats_S, 1e-6) / np.maximum(denominator.nats_S, 1e-6))


def gain(base: Scored, expert: Scored) -> Interval:
    """Return the mean over segments of a(s) = ln(b_base / b_expert)."""
    return interval(bootstrap(_mean(gains(base, expert)), seed=_seed("gain", base, expert)))


def gains(base: Scored, expert: Scored) -> Clustered:
    """Return a(s) for each segment."""
    return expert.per_cluster(log_ratios(base, expert))


def decide(
    candidate: Scored,
    current: Scored,
    *,
    role: Literal["anchor", "window"],
    holdout: str,
    uses: int,
    against: Literal["current", "base", "unigram"],
) -> Decision:
    """Compare candidate and current by the mean of ln(b_candidate / b_current); negative means better."""
    if uses > MAX_USES:
        raise Absent(
            f"WindowUsedUp: this would be decision {uses} on the same holdout; at most {MAX_USES} are made"
        )
    alpha = 0.05 * 6 / (math.pi**2 * uses**2)  # summed over all uses of a window: at most 0.05
    differences = candidate.per_cluster(log_ratios(candidate, current))
    seed = _seed("decision", candidate, current)
    resampled = bootstrap(_mean(differences), seed=seed, resamples=DECISION_RESAMPLES)
    shown, upper = interval(resampled), _finite(resampled.upper(alpha))
    return Decision(
        role=role, holdout=holdout, uses=uses, alpha=alpha, interval=shown, upper=upper, against=against
    )


def specialization_score(
    own: Clustered, others: Sequence[Clustered], own_gain: Interval, delta: float
) -> Interval:
    """Return the mean over other domains of P(a(own) > a(d)), where ties count one half.

    Args:
        own: a(s) on the own anchor.
        others: a(s) on the anchor of every other domain of the suite.
        own_gain: the gain on the own anchor; the score is absent unless its lower bound exceeds delta.
        delta: the smallest difference that counts.

    """
    if not others:
        raise Absent("NoOtherDomain: the suite has no other domain to compare with")
    if own_gain.lower <= delta:
        raise Absent(
            f"NoGain: the lower bound of the own-domain gain is {own_gain.lower:.4f}, not above {delta:.4f}"
        )
    sample = np.concatenate([own.values_S, *(other.values_S for other in others)])
    score = superiority(own, others, seed=seed_of("specialization", sample.tobytes().hex()))
    return Interval(value=score.value, lower=score.lower, upper=score.upper, clusters=score.clusters)


def forgetting(others: Sequence[tuple[Scored, Scored]]) -> Interval:
    """Return the mean over other domains of b_expert - b_base, from (base, expert) on each anchor."""
    if not others:
        raise Absent("NoOtherDomain: the suite has no other domain to forget")
    samples = [_per_byte(expert, (expert.nats_S - base.nats_S) / math.log(2)) for base, expert in others]
    return interval(bootstrap(*samples, seed=_seed("forgetting", *(expert for _, expert in others))))


def change(before: Clustered, after: Clustered, *, alpha: float, seed: int) -> Change:
    """Return the mean over segments of ``after`` minus that of ``before``, two samples with clusters of their own.

    ``alpha`` is the error rate of its one-sided lower bound.
    """
    # The bootstrap returns the mean of its samples' ratios, so each sample is doubled to have their sum.
    samples = (Ratio(sign * 2 * values.sums_G, values.sizes_G) for sign, values in ((-1, before), (1, after)))
    resampled = bootstrap(*samples, seed=seed, resamples=DECISION_RESAMPLES)
    return Change(interval=interval(resampled), lower_bound=_finite(resampled.lower(alpha)))


def interval(resampled: Bootstrap) -> Interval:
    """Return the estimate with its two-sided 95 % bounds."""
    return Interval(
        value=resampled.estimate,
        lower=_finite(resampled.lower(TAIL)),
        upper=_finite(resampled.upper(TAIL)),
        clusters=resampled.clusters,
    )


def _finite(bound: float) -> float:
    if not math.isfinite(bound):
        raise Absent("NoSpread: too many clusters agree exactly for an interval to be estimated")
    return bound


def _per_byte(model: Scored, values_S: npt.NDArray[np.float64]) -> Ratio:
    return Ratio(model.per_cluster(values_S).sums_G, model.per_cluster(model.sizes_S).sums_G)


def _mean(values: Clustered) -> Ratio:
    return Ratio(values.sums_G, values.sizes_G)


def _seed(name: str, *models: Scored) -> int:
    return seed_of(name, *(model.label for model in models))
