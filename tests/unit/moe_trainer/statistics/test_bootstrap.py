"""The intervals hold what they promise at the 10 to 40 clusters of a small holdout."""

import math

import numpy as np
import pytest

from moe_trainer.statistics.bootstrap import Bootstrap, Ratio, bootstrap, pivots, seed_of
from moe_trainer.statistics.clustered import Clustered

#: The gate's alpha at the first use of a window.
ALPHA = 0.05 * 6 / math.pi**2


def no_difference(clusters: int, draw: np.random.Generator) -> Clustered:
    """Differences with mean 0: clusters of 1 to 30 segments that go up and down together."""
    sizes = np.minimum(draw.geometric(0.15, clusters), 30)
    together = np.repeat(draw.normal(0, 0.5, clusters), sizes)
    ids = np.repeat(np.arange(clusters), sizes).astype(str)
    return Clustered.of(together + draw.normal(0, 1, sizes.sum()), list(ids))


def mean(values: Clustered) -> Ratio:
    return Ratio(values.sums_G, values.sizes_G)


def missed(draws: int, errors: int) -> tuple[float, float]:
    """Return the band that a rate of errors lies in: three binomial standard errors either side."""
    rate = errors / draws
    margin = 3 * math.sqrt(ALPHA * (1 - ALPHA) / draws)
    return rate - margin, rate + margin


@pytest.mark.parametrize("clusters", [10, 20, 40])
def test_an_equal_candidate_is_promoted_about_alpha_of_the_time(clusters: int) -> None:
    draw, draws = np.random.default_rng(clusters), 500
    wrong = sum(
        bootstrap(mean(no_difference(clusters, draw)), seed=i, resamples=999).upper(ALPHA) < 0
        for i in range(draws)
    )
    lowest, _ = missed(draws, wrong)
    assert lowest <= ALPHA


def test_the_percentile_bootstrap_would_promote_more_often() -> None:
    """Why it is studentised: on the same data the plain percentile bootstrap is clearly too sure."""
    draw, draws, percentile, studentised = np.random.default_rng(1), 800, 0, 0
    for i in range(draws):
        sample = mean(no_difference(10, draw))
        found = bootstrap(sample, seed=i, resamples=999)
        studentised += found.upper(ALPHA) < 0
        weights = np.random.default_rng(i).multinomial(10, np.full(10, 0.1), size=999)
        means = weights @ sample.numerators_G / (weights @ sample.denominators_G)
        percentile += np.quantile(means, 1 - ALPHA) < 0
    assert percentile > 1.3 * studentised
    assert missed(draws, percentile)[0] > ALPHA


def test_a_real_difference_is_found_and_its_interval_holds_it() -> None:
    draw = np.random.default_rng(0)
    sample = no_difference(30, draw)
    shifted = Clustered(sample.values_S - 2, sample.index_S, sample.clusters)
    found = bootstrap(mean(shifted), seed=0)
    assert found.lower(0.025) < -2 < found.upper(0.025) < 0


def test_a_ratio_weighs_clusters_by_their_denominators() -> None:
    found = bootstrap(Ratio(np.array([2.0, 30.0]), np.array([1.0, 10.0])), seed=0)
    assert found.estimate == pytest.approx(32 / 11)


def test_several_samples_give_the_mean_of_their_ratios() -> None:
    one, two = Ratio(np.array([1.0, 2.0, 3.0]), np.ones(3)), Ratio(np.array([5.0, 6.0, 4.5]), np.ones(3))
    found = bootstrap(one, two, seed=0)
    alone = [bootstrap(sample, seed=0).standard_error for sample in (one, two)]
    assert found.estimate == pytest.approx((2 + 15.5 / 3) / 2)
    assert found.standard_error == pytest.approx(math.hypot(*alone) / 2)


def test_the_same_seed_gives_the_same_bounds() -> None:
    sample = mean(no_difference(12, np.random.default_rng(3)))
    assert bootstrap(sample, seed=5).upper(0.01) == bootstrap(sample, seed=5).upper(0.01)
    assert bootstrap(sample, seed=5).upper(0.01) != bootstrap(sample, seed=6).upper(0.01)


def test_a_smaller_alpha_gives_a_higher_upper_bound() -> None:
    found = bootstrap(mean(no_difference(15, np.random.default_rng(4))), seed=0)
    bounds = [found.upper(0.05 * 6 / (math.pi * k) ** 2) for k in range(1, 6)]
    assert bounds == sorted(bounds) and len(set(bounds)) == 5


def test_clusters_that_all_agree_leave_no_doubt() -> None:
    found = bootstrap(Ratio(np.full(20, 3.0), np.ones(20)), seed=0)
    assert found.lower(0.025) == found.estimate == found.upper(0.025) == 3.0


def test_a_resample_that_differs_without_spread_makes_the_bound_infinite() -> None:
    t_B = pivots(np.array([0.0, -1.0, 1.0]), np.array([0.0, 0.0, 0.0]))
    assert t_B.tolist() == [-math.inf, 0.0, math.inf]
    assert Bootstrap(0.0, 1.0, t_B, 3).upper(0.1) == math.inf


def test_one_cluster_or_an_empty_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 clusters, got 1"):
        Ratio(np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="denominator must be positive"):
        Ratio(np.ones(2), np.array([1.0, 0.0]))


def test_seeds_depend_on_every_input_and_on_where_they_part() -> None:
    assert seed_of("a", "b") == seed_of("a", "b")
    assert len({seed_of("a", "b"), seed_of("ab"), seed_of("b", "a"), seed_of("a", "b", "")}) == 4
