"""Scores by hand where they can be computed by hand, and every reason for a score's absence."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest

from moe_formats.job_report import Interval
from moe_trainer.evaluation import scores
from moe_trainer.evaluation.matrix import Cell, CellKey
from moe_trainer.evaluation.scores import Absent, Scored

DIGEST = "sha256:" + "a" * 64


def scored(nats: Sequence[float], *, per_cluster: int = 1, label: str = "model") -> Scored:
    """Segments of 100 bytes, so many to a cluster."""
    return Scored(
        nats_S=np.asarray(nats, dtype=np.float64),
        sizes_S=np.full(len(nats), 100.0),
        hits_S=np.full(len(nats), 25.0),
        clusters=[f"c{i // per_cluster}" for i in range(len(nats))],
        label=label,
    )


def noisy(level: float, seed: int, clusters: int = 30) -> Scored:
    draw = np.random.default_rng(seed)
    return scored(level * np.exp(draw.normal(0, 0.02, clusters * 4)), per_cluster=4, label=f"{level} {seed}")


def test_bits_per_byte_is_total_nats_over_ln2_and_total_bytes() -> None:
    found = scores.bits_per_byte(scored([100.0, 200.0] * 15))
    assert found.value == pytest.approx(150 / math.log(2) / 100)
    assert found.lower < found.value < found.upper
    assert found.clusters == 30


def test_next_byte_accuracy_is_the_share_of_bytes() -> None:
    found = scores.next_byte_accuracy(scored([1.0] * 30))
    assert (found.value, found.lower, found.upper, found.clusters) == (0.25, 0.25, 0.25, 30)


def test_the_interval_of_next_byte_accuracy_is_over_clusters_and_stays_a_share() -> None:
    model = scored([1.0] * 60)
    half = np.repeat([0.0, 1.0], 30) * model.sizes_S
    independent = scores.next_byte_accuracy(dataclasses.replace(model, hits_S=half))
    pairs = [str(number // 2) for number in range(60)]
    clustered = scores.next_byte_accuracy(dataclasses.replace(model, hits_S=half, clusters=pairs))
    assert independent.value == clustered.value == 0.5
    assert clustered.upper - clustered.lower > 1.2 * (independent.upper - independent.lower)
    nearly = np.where(np.arange(60) == 0, 0.0, 1.0) * model.sizes_S
    assert scores.next_byte_accuracy(dataclasses.replace(model, hits_S=nearly)).upper <= 1


def test_gain_is_the_mean_log_ratio_of_base_to_expert() -> None:
    found = scores.gain(scored([200.0] * 30), scored([100.0] * 15 + [150.0] * 15))
    assert found.value == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_a_decision_is_negative_where_the_candidate_is_better() -> None:
    found = scores.decide(
        noisy(90, 1), noisy(100, 2), role="window", holdout=DIGEST, uses=1, against="current"
    )
    assert found.interval.lower < math.log(0.9) < found.interval.upper
    assert found.interval.value < found.upper < 0
    assert found.alpha == pytest.approx(0.05 * 6 / math.pi**2)


def test_later_uses_of_a_window_ask_for_more() -> None:
    bounds = [
        scores.decide(
            noisy(90, 1), noisy(100, 2), role="window", holdout=DIGEST, uses=uses, against="base"
        ).upper
        for uses in range(1, 6)
    ]
    assert bounds == sorted(bounds)
    with pytest.raises(Absent, match="WindowUsedUp: this would be decision 6"):
        scores.decide(noisy(90, 1), noisy(100, 2), role="window", holdout=DIGEST, uses=6, against="base")


def test_all_uses_of_a_window_together_err_at_most_five_percent() -> None:
    alphas = [
        scores.decide(
            noisy(90, 1), noisy(100, 2), role="anchor", holdout=DIGEST, uses=k, against="base"
        ).alpha
        for k in range(1, 6)
    ]
    assert sum(alphas) < 0.05


def test_too_few_clusters_decide_nothing() -> None:
    small = noisy(100, 1, clusters=19)
    for compute in (
        lambda: scores.bits_per_byte(small),
        lambda: scores.next_byte_accuracy(small),
        lambda: scores.gain(small, small),
        lambda: scores.decide(small, small, role="anchor", holdout=DIGEST, uses=1, against="base"),
        lambda: scores.forgetting([(small, small)]),
    ):
        with pytest.raises(Absent, match="HoldoutTooSmall: 19 clean clusters are held out; 20 are needed"):
            compute()


def test_clusters_that_are_missing_because_of_a_tokenizer_are_explained() -> None:
    cell = Cell(
        key=CellKey(artefact=DIGEST, holdout=DIGEST, scorer="any"),
        clusters=tuple(f"c{number}" for number in range(30)),
        sizes=(10,) * 30,
        nats=(10.0,) * 30,
        hits=(1,) * 30,
        context_nats=(0.0,) * 30,
        unreadable=tuple(range(20)),
    )
    found = Scored.clean(cell, frozenset(), frozenset(range(15, 25)))
    with pytest.raises(
        Absent, match=r"HoldoutTooSmall: 5 clean clusters .*; 25 segments are left out because .*tokenizer"
    ):
        scores.bits_per_byte(found)


def test_different_segments_are_never_compared() -> None:
    with pytest.raises(ValueError, match="not the same segments"):
        scores.gain(scored([1.0] * 30), scored([1.0] * 40))


def test_a_segment_coded_for_free_stays_finite() -> None:
    expert = noisy(100, 1)
    expert.nats_S[0] = 0.0
    found = scores.gain(noisy(100, 2), expert)
    assert math.isfinite(found.lower) and math.isfinite(found.upper)


def test_one_cluster_that_alone_differs_leaves_the_score_absent() -> None:
    with pytest.raises(Absent, match="NoSpread"):
        scores.gain(scored([100.0] * 30), scored([50.0] + [100.0] * 29))


def test_the_specialization_score_needs_a_gain() -> None:
    own, other = scores.gains(noisy(100, 1), noisy(80, 2)), scores.gains(noisy(100, 3), noisy(120, 4))
    with pytest.raises(Absent, match=r"NoGain: .* 0\.0040, not above 0\.0050"):
        scores.specialization_score(own, [other], Interval(value=0.1, lower=0.004, upper=0.2), 0.005)
    found = scores.specialization_score(own, [other], Interval(value=0.2, lower=0.1, upper=0.3), 0.005)
    assert found.value == 1.0 and 0.85 < found.lower < 1.0


def test_without_other_domains_there_is_no_specialization_and_no_forgetting() -> None:
    own = scores.gains(noisy(100, 1), noisy(80, 2))
    with pytest.raises(Absent, match="NoOtherDomain"):
        scores.specialization_score(own, [], Interval(value=0.2, lower=0.1, upper=0.3), 0.005)
    with pytest.raises(Absent, match="NoOtherDomain"):
        scores.forgetting([])


def test_forgetting_is_the_mean_over_domains_in_bits_per_byte() -> None:
    pairs = [(scored([100.0] * 30), scored([110.0] * 30)), (scored([100.0] * 40), scored([130.0] * 40))]
    found = scores.forgetting(pairs)
    assert found.value == pytest.approx((0.1 + 0.3) / 2 / math.log(2))
    assert found.clusters == 30


def test_tainted_clusters_are_left_out() -> None:
    cell = Cell(
        key=CellKey(artefact=DIGEST, holdout=DIGEST, scorer="any"),
        clusters=("a", "b", "a", "c"),
        sizes=(1, 2, 3, 4),
        nats=(10.0, 20.0, 30.0, 40.0),
        hits=(0, 1, 2, 3),
        context_nats=(0.0, 0.0, 0.0, 0.0),
    )
    found = Scored.clean(cell, frozenset({"a"}))
    assert (list(found.nats_S), list(found.sizes_S), list(found.hits_S)) == ([20, 40], [2, 4], [1, 3])
    assert list(found.clusters) == ["b", "c"]


def test_the_same_losses_give_the_same_intervals() -> None:
    assert scores.gain(noisy(100, 1), noisy(90, 2)) == scores.gain(noisy(100, 1), noisy(90, 2))
