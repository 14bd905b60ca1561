"""How often a value of one sample exceeds a value of another: the specialization score and its interval.

The score is the mean over the other domains d of P(a(own) > a(d)), ties counting one half: the
Mann-Whitney statistic, here of clustered data (Obuchowski, Biometrics 53, 1997). The clusters of all
samples are resampled; own ones once for all domains, because the same own segments meet every domain.

The interval is a bootstrap-t on the log-odds scale, which keeps it inside 0 to 1. Near the edges nearly
every pair agrees, some resamples show no spread, and a bootstrap knows nothing: there the bound is that
of Hoeffding (Journal of the American Statistical Association 58, 1963), which holds at every sample size.

Shape suffixes: B resamples, G own clusters, H clusters of another domain, S segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_trainer.statistics.bootstrap import RESAMPLES, TAIL, Bootstrap, pivots, resample
from moe_trainer.statistics.clustered import Array, Clustered


@dataclass(frozen=True)
class Superiority:
    """A score between 0 and 1 with two-sided 95 % bounds; `clusters` is the smallest sample's number."""

    value: float
    lower: float
    upper: float
    clusters: int


def superiority(
    own: Clustered, others: Sequence[Clustered], *, seed: int, resamples: int = RESAMPLES
) -> Superiority:
    """Return the mean over `others` of P(own > other) with its 95 % interval.

    Raises:
        ValueError: there is no other sample.

    """
    if not others:
        raise ValueError("a specialization score compares with at least one other domain")
    clusters = min(own.clusters, *(other.clusters for other in others))
    generator = np.random.default_rng(seed)
    own_BG = np.vstack([np.ones(own.clusters), resample(own.clusters, generator, resamples)])
    scores_B, own_part_BG, variance_B = np.zeros(len(own_BG)), np.zeros(own_BG.shape), np.zeros(len(own_BG))
    for other in others:  # the first row of each is the sample as it is, the rest are resamples
        other_BH = np.vstack([np.ones(other.clusters), resample(other.clusters, generator, resamples)])
        domain = _one_domain(own, other, own_BG, other_BH)
        scores_B += domain.scores_B / len(others)
        own_part_BG += domain.own_influence_BG / len(others)
        variance_B += _spread(other_BH, domain.other_influence_BH) / len(others) ** 2
    errors_B = np.sqrt(variance_B + _spread(own_BG, own_part_BG))
    return _interval(scores_B, errors_B, clusters)


def hoeffding_lower(score: float, clusters: int, alpha: float) -> float:
    """Return the lower bound at confidence 1 - alpha that assumes nothing but independent clusters.

    Split the pairs into min(G, H) disjoint (own, other) ones: their scores are independent and lie in
    0 to 1, so P(mean >= score) <= exp(-clusters * KL(score || truth)) (theorem 1, and section 5 for the
    mean over all splits). The bound is the truth at which that is alpha; alpha^(1/clusters) at score 1.
    """
    low, high = 0.0, score
    for _ in range(60):  # bisection: the divergence falls as the truth rises towards the score
        middle = (low + high) / 2
        too_low = clusters * _divergence(score, middle) > -np.log(alpha)
        low, high = (middle, high) if too_low else (low, middle)
    return low


def _divergence(p: float, q: float) -> float:
    """Return KL(p || q) of two coins, in nats."""
    if q <= 0:
        return float("inf") if p > 0 else 0.0
    first = p * np.log(p / q) if p > 0 else 0.0
    second = (1 - p) * np.log((1 - p) / (1 - q)) if p < 1 else 0.0
    return float(first + second)


@dataclass(frozen=True)
class _Domain:
    """The score against one domain in each resample, and how much each cluster pulls it."""

    scores_B: Array
    own_influence_BG: Array
    other_influence_BH: Array


def _one_domain(own: Clustered, other: Clustered, own_BG: Array, other_BH: Array) -> _Domain:
    wins_SS = (own.values_S[:, None] > other.values_S) + 0.5 * (own.values_S[:, None] == other.values_S)
    wins_GH = own.members_GS @ wins_SS @ other.members_GS.T
    own_sizes_B, other_sizes_B = own_BG @ own.sizes_G, other_BH @ other.sizes_G
    own_wins_BG, other_wins_BH = other_BH @ wins_GH.T, own_BG @ wins_GH
    scores_B = np.einsum("bg,bg->b", own_BG, own_wins_BG) / (own_sizes_B * other_sizes_B)
    return _Domain(
        scores_B=scores_B,
        own_influence_BG=(own_wins_BG / other_sizes_B[:, None] - scores_B[:, None] * own.sizes_G)
        / own_sizes_B[:, None],
        other_influence_BH=(other_wins_BH / own_sizes_B[:, None] - scores_B[:, None] * other.sizes_G)
        / other_sizes_B[:, None],
    )


def _spread(weights_BG: Array, influence_BG: Array) -> Array:
    """Return each resample's variance between clusters."""
    clusters = weights_BG.shape[1]
    squares_B: Array = np.einsum("bg,bg->b", weights_BG, influence_BG**2)
    variance_B: Array = squares_B * (clusters / max(clusters - 1, 1))
    return variance_B


def _interval(scores_B: Array, errors_B: Array, clusters: int) -> Superiority:
    """Return the interval: bootstrap-t on the log-odds scale, Hoeffding's where that is infinite."""
    score = float(scores_B[0])
    lower, upper = -np.inf, np.inf
    if errors_B[0] > 0:
        with np.errstate(divide="ignore", invalid="ignore"):
            odds_B = np.log(scores_B / (1 - scores_B))
            odds_errors_B = np.nan_to_num(errors_B / (scores_B * (1 - scores_B)), nan=0.0)
        t_B = pivots(odds_B[1:] - odds_B[0], odds_errors_B[1:])
        bootstrap = Bootstrap(float(odds_B[0]), float(odds_errors_B[0]), t_B, clusters)
        lower, upper = bootstrap.lower(TAIL), bootstrap.upper(TAIL)
    return Superiority(
        value=score,
        lower=_probability(lower) if np.isfinite(lower) else hoeffding_lower(score, clusters, TAIL),
        upper=_probability(upper) if np.isfinite(upper) else 1 - hoeffding_lower(1 - score, clusters, TAIL),
        clusters=clusters,
    )


def _probability(log_odds: float) -> float:
    return float(1 / (1 + np.exp(-log_odds)))
