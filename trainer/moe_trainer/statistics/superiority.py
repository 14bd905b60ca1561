"""How often a value of one sample exceeds a value of another: the specialization score and its interval.

The score is the mean over the other domains d of P(a(own) > a(d)), where ties count one half: the Mann-Whitney
statistic of clustered data (Obuchowski, Biometrics 53, 1997). The clusters of all samples are resampled; the own ones
once for all domains, because the same own segments are compared with every domain.

The interval is that of probability.py. Where a bootstrap says nothing, it is Hoeffding's, which holds here because the
pairs split into min(G, H) disjoint (own, other) pairs (section 5 of his article, for the mean over all splits).

Shape suffixes: B resamples, G own clusters, H clusters of another domain, S segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_trainer.statistics.bootstrap import RESAMPLES, resample
from moe_trainer.statistics.clustered import Array, Clustered
from moe_trainer.statistics.probability import Probability, interval_of, spread


def superiority(
    own: Clustered, others: Sequence[Clustered], *, seed: int, resamples: int = RESAMPLES
) -> Probability:
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
        variance_B += spread(other_BH, domain.other_influence_BH) / len(others) ** 2
    errors_B = np.sqrt(variance_B + spread(own_BG, own_part_BG))
    return interval_of(scores_B, errors_B, clusters)


@dataclass(frozen=True)
class _Domain:
    """The score against one domain in each resample, and each cluster's influence on it."""

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
