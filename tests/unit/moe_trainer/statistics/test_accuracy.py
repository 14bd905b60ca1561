"""Accuracies and their differences: by hand, at the edges, and by simulation of their coverage."""

import math

import numpy as np
import pytest

from moe_trainer.statistics.accuracy import difference, share
from moe_trainer.statistics.clustered import Array, Clustered

SIMULATIONS = 150


def items(values: Array | list[float]) -> Clustered:
    return Clustered.of(values, [str(number) for number in range(len(values))])


def paraphrases(truth: float, draw: np.random.Generator) -> Clustered:
    """Thirty questions in up to five wordings each: all of a question are answered alike, or nearly."""
    sizes = draw.integers(1, 6, 30)
    known = np.repeat(draw.random(30) < truth, sizes)
    ids = np.repeat(np.arange(30), sizes).astype(str)
    return Clustered.of(known.astype(float), list(ids))


@pytest.mark.parametrize("truth", [0.5, 0.9, 0.98])
def test_the_interval_of_an_accuracy_holds_the_truth(truth: float) -> None:
    draw, misses = np.random.default_rng(0), 0
    for i in range(SIMULATIONS):
        found = share(paraphrases(truth, draw), seed=i, resamples=400)
        misses += not found.lower <= truth <= found.upper
        assert 0 <= found.lower <= found.value <= found.upper <= 1
    assert misses / SIMULATIONS < 0.05 + 3 * math.sqrt(0.05 * 0.95 / SIMULATIONS)


def test_everything_right_is_no_proof_of_perfection() -> None:
    found = share(items([1.0] * 100), seed=0)
    assert found.value == 1
    assert found.lower == pytest.approx(0.025 ** (1 / 100), abs=1e-6)  # Clopper and Pearson's, one-sided
    assert share(items([0.0] * 100), seed=0).upper == pytest.approx(1 - found.lower)


def test_wordings_of_one_question_prove_less_than_as_many_questions() -> None:
    right = [1.0] * 95 + [0.0] * 5
    apart = share(items(right), seed=0)
    together = share(Clustered.of(right, [str(number // 5) for number in range(100)]), seed=0)
    assert together.value == apart.value
    assert together.lower < apart.lower


def test_two_models_that_answer_alike_differ_by_less_the_more_items_there_are() -> None:
    draw = np.random.default_rng(1)
    for count in (50, 500):
        same = items((draw.random(count) < 0.7).astype(float))
        found = difference(same, same, seed=0)
        assert found.value == 0
        assert found.upper == pytest.approx(-found.lower)
        assert found.upper == pytest.approx(1 - 0.0125 ** (1 / count), abs=1e-6)


def test_the_interval_of_a_difference_holds_the_truth() -> None:
    draw, misses = np.random.default_rng(2), 0
    for i in range(SIMULATIONS):
        first = (draw.random(120) < 0.6).astype(float)
        lost = draw.random(120) < 0.2  # of what the first gets right; the second is right nowhere else
        second = first * ~lost
        found = difference(items(second), items(first), seed=i, resamples=400)
        misses += not found.lower <= -0.6 * 0.2 <= found.upper
    assert misses / SIMULATIONS < 0.05 + 3 * math.sqrt(0.05 * 0.95 / SIMULATIONS)


def test_pairing_makes_a_difference_sharper_than_two_accuracies() -> None:
    right = (np.random.default_rng(3).random(300) < 0.6).astype(float)
    worse = right.copy()
    worse[np.flatnonzero(right)[:12]] = 0
    found = difference(items(worse), items(right), seed=0)
    assert found.upper < 0
    assert share(items(worse), seed=0).upper > share(items(right), seed=0).lower


def test_other_items_are_no_pair() -> None:
    with pytest.raises(ValueError, match="same items"):
        difference(items([1.0, 0.0]), items([1.0, 0.0, 1.0]), seed=0)
    with pytest.raises(ValueError, match="at least 2 clusters"):
        share(Clustered.of([1.0, 1.0], ["a", "a"]), seed=0)
