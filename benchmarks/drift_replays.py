"""How often drift is found where there is none, and where there is: replays of recorded losses of real models on real text.

The losses are those of benchmarks/results/segment_losses.json: per segment, of Experts and of the base that they were
trained from, on three anchors. A replay draws an anchor and then one window after the other from the recorded clusters of
an anchor, so the truth is that nothing drifts. After every window the drift is computed as the drift Job does, on the last
four windows pooled, and judged as the operator does. In a year of weekly windows all 52 measurements share one anchor.

    perMeasurement  share of single measurements that say "drifted"
    perYear         share of replayed years in which any of the 52 measurements does
    found           share of replays in which a shift is found within three windows, after a year's history without any

A shift of 10 % makes every segment of the Expert's newest windows cost 10 % more bits, and leaves the base's as they are.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_formats.resources.drift import MAX_WINDOWS
from moe_operator.planner.drift import DRIFTED, has_drifted
from moe_trainer.evaluation.drift import ALPHA, MIN_WINDOWS
from moe_trainer.statistics.bootstrap import Ratio, bootstrap

Array = npt.NDArray[np.float64]

LOSSES = Path(__file__).parent / "results" / "segment_losses.json"
BASE = "general-1"
#: Clusters of the anchor, and of each window.
SIZES = ((20, 20), (40, 20), (40, 40))
WEEKS = 52
SHIFT = 0.1
#: Windows within which a shift has to be found.
WITHIN = 3
RESAMPLES = 2_000


def drift_replays(replays: int) -> dict[str, Any]:
    """Return the rates of every recorded pair at every size, and their means and extremes."""
    rows = [
        {
            "anchor": anchor,
            "expert": expert,
            "clusters": list(size),
            "spread": round(float(np.std(sums / counts)), 4),
        }
        | replayed(sums, counts, size, replays)
        for anchor, expert, sums, counts in pairs(json.loads(LOSSES.read_text()))
        for size in SIZES
    ]
    return {
        "replays": replays,
        "alpha": ALPHA,
        "drifted": DRIFTED,
        "shift": SHIFT,
        "summary": {
            f"anchor of {first}, windows of {later}": summary(
                [row for row in rows if row["clusters"] == [first, later]]
            )
            for first, later in SIZES
        },
        "rows": rows,
    }


def pairs(losses: dict[str, Any]) -> Iterator[tuple[str, str, Array, Array]]:
    """Yield every Expert on its own anchor, with its clusters' sums of ln(b_base / b_expert) and numbers of segments."""
    for anchor, column in losses.items():
        clusters = np.array(column["clusters"])
        counts = np.bincount(clusters).astype(np.float64)
        for expert, nats in column["nats"].items():
            if expert.rpartition("-")[0] == anchor:
                gains = np.log(np.array(column["nats"][BASE]) / np.array(nats))
                sums: Array = np.bincount(clusters, weights=gains).astype(np.float64)
                yield anchor, expert, sums, counts


def replayed(sums: Array, counts: Array, sizes: tuple[int, int], replays: int) -> dict[str, Any]:
    """Return the rates of one pair; ``sizes`` are the clusters of the anchor, and of each window."""
    first, size = sizes
    generator = np.random.default_rng([first, size, len(sums), int(counts.sum())])
    measured = alarms = years = 0
    found = [0] * WITHIN
    for replay in range(replays):
        anchor = drawn(sums, counts, first, generator)
        windows = [drawn(sums, counts, size, generator) for _ in range(WEEKS)]
        said = [
            drifted(anchor, windows[max(0, last - MAX_WINDOWS) : last], seed=replay * WEEKS + last)
            for last in range(MIN_WINDOWS, WEEKS + 1)
        ]
        measured, alarms, years = measured + len(said), alarms + sum(said), years + any(said)
        moved = [shifted(drawn(sums, counts, size, generator)) for _ in range(WITHIN)]
        for number in range(WITHIN):
            last_four = [*windows[-MAX_WINDOWS:], *moved[: number + 1]][-MAX_WINDOWS:]
            if drifted(anchor, last_four, seed=replay):
                for later in range(number, WITHIN):
                    found[later] += 1
                break
    return {
        "perMeasurement": round(alarms / measured, 5),
        "perYear": round(years / replays, 4),
        **{f"foundWithin{number + 1}": round(count / replays, 4) for number, count in enumerate(found)},
    }


def drawn(sums: Array, counts: Array, size: int, generator: np.random.Generator) -> Ratio:
    """Return a holdout of recorded clusters, drawn with replacement."""
    chosen = generator.integers(0, len(sums), size)
    return Ratio(sums[chosen], counts[chosen])


def shifted(window: Ratio) -> Ratio:
    """Return a window on which every segment costs the Expert 10 % more bits."""
    return Ratio(window.numerators_G - math.log(1 + SHIFT) * window.denominators_G, window.denominators_G)


def drifted(anchor: Ratio, windows: list[Ratio], *, seed: int) -> bool:
    """Return whether the drift on some windows pooled is found, as `evaluation/drift.py` and the planner do."""
    last = Ratio(
        np.concatenate([window.numerators_G for window in windows]),
        np.concatenate([window.denominators_G for window in windows]),
    )
    value = mean(anchor) - mean(last)
    if value - math.sqrt(variance(anchor) + variance(last)) <= DRIFTED:
        return (
            False  # The bound at 1 % lies more than one standard error below the value: no need to resample.
        )
    samples = (
        Ratio(2 * anchor.numerators_G, anchor.denominators_G),
        Ratio(-2 * last.numerators_G, last.denominators_G),
    )
    return bool(has_drifted(value, bootstrap(*samples, seed=seed, resamples=RESAMPLES).lower(ALPHA), None))


def mean(holdout: Ratio) -> float:
    """Return the mean over a holdout's segments."""
    return float(holdout.numerators_G.sum() / holdout.denominators_G.sum())


def variance(holdout: Ratio) -> float:
    """Return the variance of that mean between clusters, linearised as in bootstrap.py."""
    clusters = len(holdout.numerators_G)
    residuals = holdout.numerators_G - mean(holdout) * holdout.denominators_G
    total = holdout.denominators_G.sum()
    return float((residuals**2).sum() * clusters / (clusters - 1) / total**2)


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the mean of each rate over the pairs, with the largest false alarms and the smallest power."""
    rates = [name for name in rows[0] if name.startswith(("per", "found"))]
    worst = {name: min if name.startswith("found") else max for name in rates}
    return {
        name: {
            "mean": round(float(np.mean([row[name] for row in rows])), 4),
            "worst": worst[name](row[name] for row in rows),
        }
        for name in rates
    }
