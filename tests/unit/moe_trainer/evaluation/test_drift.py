"""Drift and difficulty of made-up scores, against plain Python; and the domain that text resembles most."""

import math
import random
from statistics import mean

import numpy as np
import pytest

from moe_formats.job_report import Window
from moe_trainer.evaluation.drift import Pair, difficulty, drift, last_windows, pool, too_few
from moe_trainer.evaluation.nearest import nearest_domain
from moe_trainer.evaluation.scores import Absent, Scored


def pair(
    name: str,
    clusters: int,
    draw: random.Random,
    *,
    gain: float = 0.2,
    harder: float = 0.0,
    noise: float = 0.05,
) -> Pair:
    """Return a holdout of two segments per cluster on which the model gains so much over its base."""
    base, model = [], []
    for _ in range(clusters):
        of_cluster = draw.gauss(0, noise)
        for _ in range(2):
            nats = 256 * math.log(2) * 2.0 * math.exp(harder + draw.gauss(0, noise))
            base.append(nats)
            model.append(nats * math.exp(-(gain + of_cluster + draw.gauss(0, noise))))
    return Pair(digest=name, model=scored(name + "m", model), base=scored(name + "b", base), tainted=0)


def scored(name: str, nats: list[float]) -> Scored:
    clusters = [f"{name[:-1]}-{number // 2}" for number in range(len(nats))]
    return Scored(np.array(nats), np.full(len(nats), 256.0), np.zeros(len(nats)), clusters, name)


def gains(of: Pair) -> list[float]:
    return [math.log(b / m) for b, m in zip(of.base.nats_S, of.model.nats_S, strict=True)]


def bits(of: Pair) -> list[float]:
    return [math.log(b / math.log(2) / 256) for b in of.base.nats_S]


def test_drift_and_difficulty_are_differences_of_means_over_all_segments_of_the_pooled_windows() -> None:
    draw = random.Random(1)
    anchor = pair("a", 30, draw)
    windows = [pair("w1", 20, draw, gain=0.15, harder=0.1), pair("w2", 50, draw, gain=0.1, harder=0.1)]
    pooled = pool(windows)
    found, harder = drift(anchor, pooled), difficulty(anchor, pooled)
    last = [value for window in windows for value in gains(window)]
    assert found.interval.value == pytest.approx(mean(gains(anchor)) - mean(last))
    assert found.interval.lower < found.interval.value < found.interval.upper
    # A bound at 1 % lies further out than one at 2.5 %.
    assert found.lower_bound < found.interval.lower
    last = [value for window in windows for value in bits(window)]
    assert harder.interval.value == pytest.approx(mean(last) - mean(bits(anchor)))
    assert found.interval.clusters == 30


def test_text_that_is_harder_for_every_model_is_no_drift() -> None:
    draw = random.Random(2)
    anchor = pair("a", 60, draw)
    pooled = pool([pair("w1", 40, draw, harder=0.3), pair("w2", 40, draw, harder=0.3)])
    assert drift(anchor, pooled).lower_bound < 0.01
    assert difficulty(anchor, pooled).lower_bound > 0.2


def test_too_few_clusters_leave_drift_absent() -> None:
    draw = random.Random(3)
    with pytest.raises(Absent, match="HoldoutTooSmall: 19 clean clusters"):
        drift(pair("a", 30, draw), pool([pair("w1", 10, draw), pair("w2", 9, draw)]))
    with pytest.raises(Absent, match="HoldoutTooSmall: 19 clean clusters"):
        drift(pair("a", 19, draw), pool([pair("w1", 10, draw), pair("w2", 10, draw)]))
    assert drift(pair("a", 20, draw), pool([pair("w1", 10, draw), pair("w2", 10, draw)])).interval


def test_without_drift_the_bound_exceeds_the_truth_about_as_often_as_its_error_rate_says() -> None:
    draw, runs = random.Random(4), 100
    wrong = sum(
        drift(pair(f"a{run}", 20, draw), pool([pair(f"w{run}", 20, draw)])).lower_bound > 0
        for run in range(runs)
    )
    # The chance of more than 5 of 100 at an error rate of 1 % is below 0.001.
    assert wrong <= 5


def test_the_last_windows_end_with_the_newest_and_leave_out_the_anchor() -> None:
    listed = [
        Window(path=f"holdouts/{number}", digest=f"sha256:{number:064x}", clusters=30, segments=60)
        for number in range(7)
    ]
    digests = [window.digest for window in listed]
    assert last_windows(listed, digests[0], digests[6]) == listed[3:7]
    assert last_windows(listed, digests[0], digests[2]) == listed[1:3]
    assert last_windows(listed, digests[0], digests[0]) == []
    assert last_windows(listed, digests[0], "sha256:" + "f" * 64) == []
    assert too_few(listed[:2]) is None
    assert (too_few(listed[:1]) or "").startswith("TooFewWindows: 1 ")


LANGUAGES = {"letters": "etaoin shrdlu", "digits": "0123456789+-", "signs": "(){};=<> "}


def written(language: str, draw: random.Random, segments: int) -> list[bytes]:
    return ["".join(draw.choices(LANGUAGES[language], k=256)).encode() for _ in range(segments)]


def test_the_nearest_domain_is_the_own_one_unless_another_leads_for_certain() -> None:
    draw = random.Random(5)
    domains = {name: written(name, draw, 40) for name in LANGUAGES}
    clusters = [str(number // 2) for number in range(40)]

    def nearest(segments: list[bytes]) -> str:
        return nearest_domain(segments, clusters, "letters", domains, alpha=0.01)

    assert nearest(written("letters", draw, 40)) == "letters"
    assert nearest(written("digits", draw, 40)) == "digits"
    mixed = written("letters", draw, 20) + written("digits", draw, 20)
    assert nearest(mixed) == "letters"  # as many clusters speak for either


def test_a_domain_with_more_text_has_no_advantage() -> None:
    draw = random.Random(6)
    same = {"own": written("letters", draw, 20), "other": written("letters", draw, 400)}
    clusters = [str(number) for number in range(60)]
    for _ in range(10):
        segments = written("letters", draw, 60)
        assert nearest_domain(segments, clusters, "own", same, alpha=0.01) == "own"
