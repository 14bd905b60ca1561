"""The share of items that a model gets right, and the difference between two models' shares, with 95 % intervals.

Items with the same origin (paraphrases of a question, parts of one document) form a cluster; clusters are resampled.

A model that gets everything right shows no spread to resample, and neither do two models that answer alike. In these
cases Hoeffding's bound (probability.py) is used: for the share directly, and for the difference as that of two shares,
of the items that only one model gets right and of those that only the other does.

For this bound, clusters of unequal size are worth (Σ n)² / Σ n² equal ones (Kish, Survey Sampling, 1965).

Shape suffixes: B resamples (the first row is the sample as it is), G clusters, S items.
"""

from dataclasses import dataclass

import numpy as np

from moe_trainer.statistics.bootstrap import RESAMPLES, TAIL, Ratio, bootstrap, resample
from moe_trainer.statistics.clustered import Array, Clustered
from moe_trainer.statistics.probability import Probability, hoeffding_lower, interval_of, spread


@dataclass(frozen=True)
class Difference:
    """A mean difference between -1 and 1 with two-sided 95 % bounds."""

    value: float
    lower: float
    upper: float
    clusters: int


def share(right: Clustered, *, seed: int, resamples: int = RESAMPLES) -> Probability:
    """Return the mean over items of values between 0 and 1; raises ValueError below 2 clusters."""
    _check(right)
    draws_BG = resample(right.clusters, np.random.default_rng(seed), resamples)
    weights_BG = np.vstack([np.ones(right.clusters), draws_BG])
    sizes_B = weights_BG @ right.sizes_G
    shares_B = weights_BG @ right.sums_G / sizes_B
    influence_BG = (right.sums_G - shares_B[:, None] * right.sizes_G) / sizes_B[:, None]
    # Rounding can take a share of everything a hair above 1.
    return interval_of(
        np.clip(shares_B, 0.0, 1.0), np.sqrt(spread(weights_BG, influence_BG)), right.clusters, _worth(right)
    )


def difference(first: Clustered, second: Clustered, *, seed: int, resamples: int = RESAMPLES) -> Difference:
    """Return the mean over items of first - second, where both are two models' values between 0 and 1 for the same items.

    Raises ValueError if the items or their clusters are not the same.
    """
    _check(first)
    if first.clusters != second.clusters or not np.array_equal(first.index_S, second.index_S):
        raise ValueError("a paired difference needs the same items in the same clusters")
    values_S: Array = first.values_S - second.values_S
    grouped = Clustered(values_S, first.index_S, first.clusters)
    resampled = bootstrap(Ratio(grouped.sums_G, grouped.sizes_G), seed=seed, resamples=resamples)
    lower, upper = resampled.lower(TAIL), resampled.upper(TAIL)
    if not values_S.any() or not np.isfinite(lower) or not np.isfinite(upper):
        lower, upper = _without_spread(values_S, _worth(first))
    return Difference(resampled.estimate, max(lower, -1.0), min(upper, 1.0), first.clusters)


def _without_spread(values_S: Array, worth: float) -> tuple[float, float]:
    """Return Hoeffding's bounds of a difference: each of its two shares errs at half the rate."""
    gained, lost = float(np.maximum(values_S, 0).mean()), float(np.maximum(-values_S, 0).mean())

    def least(part: float) -> float:
        return hoeffding_lower(part, worth, TAIL / 2)

    def most(part: float) -> float:
        return 1 - hoeffding_lower(1 - part, worth, TAIL / 2)

    return least(gained) - most(lost), most(gained) - least(lost)


def _worth(items: Clustered) -> float:
    """Return the number of clusters of equal size that would be as informative."""
    return float(items.sizes_G.sum() ** 2 / (items.sizes_G**2).sum())


def _check(items: Clustered) -> None:
    if items.clusters < 2:
        raise ValueError(f"an interval needs at least 2 clusters, got {items.clusters}")
