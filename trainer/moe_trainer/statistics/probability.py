"""The interval of a figure between 0 and 1, also for figures near 0 or 1.

It is a bootstrap-t on the log-odds scale, which keeps it between 0 and 1. Near the edges nearly all clusters agree, some
resamples show no spread, and a bootstrap says nothing. There the bound of Hoeffding is used (Journal of the American
Statistical Association 58, 1963), which holds for every sample size.

Shape suffixes: B resamples (the first row is the sample as it is), G clusters.
"""

from dataclasses import dataclass

import numpy as np

from moe_trainer.statistics.bootstrap import TAIL, Bootstrap, pivots
from moe_trainer.statistics.clustered import Array


@dataclass(frozen=True)
class Probability:
    """A figure between 0 and 1 with two-sided 95 % bounds; `clusters` is the smallest sample's number of clusters."""

    value: float
    lower: float
    upper: float
    clusters: int


def interval_of(
    scores_B: Array, errors_B: Array, clusters: int, effective: float | None = None
) -> Probability:
    """Return the interval: bootstrap-t on the log-odds scale, or Hoeffding's where that is infinite.

    Args:
        scores_B: the figure itself, followed by that of each resample.
        errors_B: their standard errors.
        clusters: the number of clusters behind the figure.
        effective: the number of clusters of equal weight that they are worth; by default ``clusters``.

    """
    score, worth = float(scores_B[0]), float(clusters) if effective is None else effective
    lower, upper = -np.inf, np.inf
    if errors_B[0] > 0:
        with np.errstate(divide="ignore", invalid="ignore"):
            odds_B = np.log(scores_B / (1 - scores_B))
            odds_errors_B = np.nan_to_num(errors_B / (scores_B * (1 - scores_B)), nan=0.0)
        t_B = pivots(odds_B[1:] - odds_B[0], odds_errors_B[1:])
        bootstrap = Bootstrap(float(odds_B[0]), float(odds_errors_B[0]), t_B, clusters)
        lower, upper = bootstrap.lower(TAIL), bootstrap.upper(TAIL)
    return Probability(
        value=score,
        lower=_probability(lower) if np.isfinite(lower) else hoeffding_lower(score, worth, TAIL),
        upper=_probability(upper) if np.isfinite(upper) else 1 - hoeffding_lower(1 - score, worth, TAIL),
        clusters=clusters,
    )


def _probability(log_odds: float) -> float:
    return float(1 / (1 + np.exp(-log_odds)))


def spread(weights_BG: Array, influence_BG: Array) -> Array:
    """Return each resample's variance between clusters, from each cluster's influence on the figure."""
    clusters = weights_BG.shape[1]
    squares_B: Array = np.einsum("bg,bg->b", weights_BG, influence_BG**2)
    variance_B: Array = squares_B * (clusters / max(clusters - 1, 1))
    return variance_B


def hoeffding_lower(score: float, clusters: float, alpha: float) -> float:
    """Return the lower bound at confidence 1 - alpha that assumes nothing but independent clusters.

    If the score is a mean of ``clusters`` independent values between 0 and 1, P(mean >= score) is at most
    exp(-clusters * KL(score || truth)) (theorem 1). The bound is the truth for which this equals alpha; for a score of
    1 that is alpha^(1/clusters).
    """
    low, high = 0.0, score
    for _ in range(60):  # bisection: the divergence falls as the truth rises towards the score
        middle = (low + high) / 2
        too_low = clusters * _divergence(score, middle) > -np.log(alpha)
        low, high = (middle, high) if too_low else (low, middle)
    return low


def _divergence(p: float, q: float) -> float:
    """Return KL(p || q) of two Bernoulli distributions, in nats."""
    if q <= 0:
        return float("inf") if p > 0 else 0.0
    first = p * np.log(p / q) if p > 0 else 0.0
    second = (1 - p) * np.log((1 - p) / (1 - q)) if p < 1 else 0.0
    return float(first + second)
