"""The trend: exact tables, and how often it is wrong on noise that lasts."""

import random
import statistics

import pytest

from moe_operator.planner.trend import BLOCKS, trend_of


@pytest.mark.parametrize(
    ("blocks", "trend", "change"),
    [
        ([10, 10, 10, 10], "Stable", 0),
        ([10, 11, 12, 13], "Improving", 3 / 11.5),
        ([13, 12, 11, 10], "Declining", -3 / 11.5),
        ([100, 101, 102, 103], "Stable", 3 / 101.5),  # certain, but less than a tenth
        ([10, 14, 9, 13], "Stable", 1.2 / 11.5),  # more than a tenth, but not certain
    ],
)
def test_the_line_through_four_means(blocks: list[float], trend: str, change: float) -> None:
    found = trend_of(blocks)
    assert found.trend == trend and found.change == pytest.approx(change)


@pytest.mark.parametrize("seed", range(200))
def test_it_is_the_test_of_a_slope_with_two_degrees_of_freedom(seed: int) -> None:
    """With two degrees of freedom the two-sided probability of a slope is 1 - |r|, r being the correlation."""
    draw = random.Random(seed)
    blocks = [draw.uniform(9, 11) + place * draw.choice([0.5, 1, 2]) for place in range(BLOCKS)]
    probability = 1 - abs(statistics.correlation(range(BLOCKS), blocks))
    found = trend_of(blocks)
    assert (found.trend != "Stable") is (probability < 0.05 and abs(found.change) >= 0.1)


@pytest.mark.parametrize(
    "blocks", [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, 0], [1, 2, 3, float("nan")], [1, 2, 3, float("inf")]]
)
def test_other_inputs_are_refused(blocks: list[float]) -> None:
    with pytest.raises(ValueError, match="a trend takes 4 positive means"):
        trend_of(blocks)


def test_few_trends_are_found_in_noise_that_lasts() -> None:
    """Means of a quarter of an hour with an autocorrelation of 0.9, as measured in benchmarks/lifecycle.py at length."""
    draw, found, runs = random.Random(1), 0, 2000
    for _ in range(runs):
        level, blocks = 0.0, []
        for _ in range(BLOCKS):
            values = []
            for _ in range(24):
                level = 0.9 * level + draw.gauss(0, 0.436)
                values.append(10 + 2 * level)
            blocks.append(sum(values) / len(values))
        found += trend_of([max(value, 0.1) for value in blocks]).trend != "Stable"
    assert found / runs <= 0.08
