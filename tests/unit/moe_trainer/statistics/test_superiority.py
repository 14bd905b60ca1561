"""The specialization score: its value by hand, its interval by simulation, its edges by proof."""

import math

import numpy as np
import pytest

from moe_trainer.statistics.clustered import Clustered
from moe_trainer.statistics.probability import hoeffding_lower
from moe_trainer.statistics.superiority import superiority


def sample(clusters: int, shift: float, draw: np.random.Generator) -> Clustered:
    sizes = np.minimum(draw.geometric(0.2, clusters), 20)
    together = np.repeat(draw.normal(shift, 0.5, clusters), sizes)
    ids = np.repeat(np.arange(clusters), sizes).astype(str)
    return Clustered.of(together + draw.normal(0, 1, sizes.sum()), list(ids))


def test_the_value_counts_pairs_and_half_the_ties_and_averages_over_domains() -> None:
    own = Clustered.of([3.0, 1.0], ["a", "b"])
    first = Clustered.of([0.0, 1.0], ["c", "d"])  # wins: 2 of 2, and 1.5 of 2
    second = Clustered.of([5.0, 2.0], ["e", "f"])  # wins: 1 of 2, and 0 of 2
    assert superiority(own, [first, second], seed=0).value == pytest.approx((3.5 / 4 + 1 / 4) / 2)


def test_random_splits_of_one_mixture_score_about_a_half() -> None:
    draw, misses = np.random.default_rng(0), 0
    for i in range(150):
        found = superiority(
            sample(25, 0, draw), [sample(25, 0, draw), sample(25, 0, draw)], seed=i, resamples=600
        )
        misses += not found.lower <= 0.5 <= found.upper
    assert misses / 150 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 150)


def test_the_interval_holds_the_truth_near_the_edge() -> None:
    # own - other ~ N(3.5, 0.5² + 0.5² + 1 + 1)
    truth = 0.5 * (1 + math.erf(3.5 / math.sqrt(2.5) / math.sqrt(2)))
    draw, misses = np.random.default_rng(1), 0
    for i in range(150):
        found = superiority(
            sample(25, 3.5, draw), [sample(25, 0, draw), sample(25, 0, draw)], seed=i, resamples=600
        )
        misses += not found.lower <= truth <= found.upper
        assert 0 < found.lower < found.value <= found.upper <= 1
    assert misses / 150 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 150)


def test_where_every_pair_is_won_the_bound_is_exact() -> None:
    own = Clustered.of(np.arange(100.0, 140.0), [str(i) for i in range(40)])
    other = Clustered.of(np.arange(30.0), [str(i) for i in range(30)])
    found = superiority(own, [other], seed=0)
    assert (found.value, found.upper) == (1.0, 1.0)
    assert found.lower == pytest.approx(0.025 ** (1 / 30))


def test_where_every_pair_is_lost_the_bounds_mirror() -> None:
    low = Clustered.of(np.arange(30.0), [str(i) for i in range(30)])
    high = Clustered.of(np.arange(100.0, 140.0), [str(i) for i in range(40)])
    found = superiority(low, [high], seed=0)
    assert (found.value, found.lower) == (0.0, pytest.approx(0.0))
    assert found.upper == pytest.approx(1 - 0.025 ** (1 / 30))


def test_hoeffdings_bound_holds_for_a_coin() -> None:
    draw, truth, clusters = np.random.default_rng(2), 0.95, 20
    heads = draw.binomial(clusters, truth, size=4000) / clusters
    misses = np.mean([hoeffding_lower(score, clusters, 0.025) > truth for score in heads])
    assert misses <= 0.025


def test_values_all_equal_score_a_half_and_say_little() -> None:
    own, other = (Clustered.of(np.zeros(20), [str(i) for i in range(20)]) for _ in range(2))
    found = superiority(own, [other], seed=0)
    assert found.value == 0.5
    assert found.lower < 0.5 < found.upper


def test_no_other_domain_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one other domain"):
        superiority(Clustered.of([1.0, 2.0], ["a", "b"]), [], seed=0)
