"""The studentised bootstrap (bootstrap-t) over clusters: the source of every interval but one.

Segments of near-duplicate documents are not independent, so clusters are resampled and not segments. The plain
percentile bootstrap is too narrow for the 10 to 40 clusters of small holdouts; resampling the pivot
t* = (estimate* - estimate) / se* instead corrects the width and the skew
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5).

Shape suffixes: B resamples, G clusters.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Enough for a 95 % interval: a hundred pivots beyond each side.
RESAMPLES = 4_000

#: Each side of a 95 % interval.
TAIL = 0.025


#: A relative spread below this is only rounding: all clusters agree.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Bootstrap:
    """An estimate with the distribution of its pivot.

    Attributes:
        estimate: the value on the clusters as they are.
        standard_error: of the estimate, between clusters.
        pivots_B: t* of every resample, sorted; infinite where a resample differs but shows no spread.
        clusters: the number of clusters behind it; for several samples, the smallest number.

    """

    estimate: float
    standard_error: float
    pivots_B: Array
    clusters: int

    def upper(self, alpha: float) -> float:
        """Return the bound that the true value exceeds with probability alpha."""
        return self.estimate - self._pivot(alpha) * self.standard_error

    def lower(self, alpha: float) -> float:
        """Return the bound that the true value falls below with probability alpha."""
        return self.estimate - self._pivot(1 - alpha) * self.standard_error

    def _pivot(self, probability: float) -> float:
        if self.standard_error == 0:  # all clusters agree: no resample differs, whatever the probability
            return 0.0
        rank = probability * (len(self.pivots_B) - 1)
        # The outer neighbour instead of interpolation: this is conservative, and defined next to infinities.
        return float(self.pivots_B[int(np.floor(rank) if probability < 0.5 else np.ceil(rank))])


@dataclass(frozen=True)
class Ratio:
    """The sums that a ratio is computed from: nats and bytes, or values and their number.

    Attributes:
        numerators_G: each cluster's sum of the quantity.
        denominators_G: each cluster's sum of what it is divided by; positive.

    """

    numerators_G: Array
    denominators_G: Array

    def __post_init__(self) -> None:
        if len(self.numerators_G) < 2:
            raise ValueError(f"an interval needs at least 2 clusters, got {len(self.numerators_G)}")
        if np.any(self.denominators_G <= 0):
            raise ValueError("every cluster's denominator must be positive: drop clusters without segments")


def bootstrap(*samples: Ratio, seed: int, resamples: int = RESAMPLES) -> Bootstrap:
    """Bootstrap the mean of the samples' ratios; each sample is resampled separately.

    With one sample this gives bits per byte, or a mean over segments; with several the mean over domains, each with
    clusters of its own. The standard errors are those of the linearised ratios.

    There must be at least one sample. The seed fixes the resamples; see `seed_of`.
    """
    generator = np.random.default_rng(seed)
    estimate, variance = 0.0, 0.0
    estimates_B, variances_B = np.zeros(resamples), np.zeros(resamples)
    for sample in samples:
        clusters = len(sample.numerators_G)
        once, spread = _ratio_and_variance(np.ones((1, clusters)), sample)
        estimate, variance = estimate + once[0], variance + spread[0]
        drawn_B, spread_B = _ratio_and_variance(resample(clusters, generator, resamples), sample)
        estimates_B += drawn_B
        variances_B += spread_B
    error = float(np.sqrt(variance))
    return Bootstrap(
        estimate=float(estimate / len(samples)),
        standard_error=0.0 if error < _ROUNDING * abs(estimate) else error / len(samples),
        pivots_B=pivots(estimates_B - estimate, np.sqrt(variances_B)),
        clusters=min(len(sample.numerators_G) for sample in samples),
    )


def resample(clusters: int, generator: np.random.Generator, resamples: int) -> Array:
    """Return how often each resample (row) draws each cluster (column) with replacement."""
    even = np.full(clusters, 1 / clusters)
    return generator.multinomial(clusters, even, size=resamples).astype(np.float64)


def pivots(differences_B: Array, errors_B: Array) -> Array:
    """Return t*, sorted; a resample that differs but has no spread counts as infinitely far."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t_B = np.where(errors_B > 0, differences_B / errors_B, np.copysign(np.inf, differences_B))
    return np.sort(np.where(differences_B == 0, 0.0, t_B))


def seed_of(*inputs: str) -> int:
    """Return a seed that depends only on the inputs, so that a repeated Job gives the same figures."""
    return int.from_bytes(hashlib.sha256("\0".join(inputs).encode()).digest()[:8], "big")


def _ratio_and_variance(weights_BG: Array, sample: Ratio) -> tuple[Array, Array]:
    """Return each row's weighted ratio r and its variance G/(G-1) · Σ w (y - r·x)² / (Σ w x)²."""
    clusters = len(sample.numerators_G)
    totals_B = weights_BG @ sample.denominators_G
    ratios_B = weights_BG @ sample.numerators_G / totals_B
    residuals_BG = sample.numerators_G - ratios_B[:, None] * sample.denominators_G
    squares_B = np.einsum("bg,bg->b", weights_BG, residuals_BG**2)
    return ratios_B, squares_B * clusters / (clusters - 1) / totals_B**2
