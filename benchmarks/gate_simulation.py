"""How often the promotion gate errs, simulated on recorded losses of real models on real text.

    python benchmarks/gate_simulation.py [--draws 2000]

Takes pairs of models from benchmarks/results/segment_losses.json and the differences ln(b_candidate /
b_current) of their segments. The differences are shifted so that their mean is exactly the gate's limit:
then nothing should be promoted, and every promotion is an error. Small holdouts are made by drawing
clusters from the recorded ones. For each pair and size:

    false       share of draws that the gate promotes, at alpha of the first and third use of a window
    percentile  the same with the plain percentile bootstrap, which is why the gate has another
    equal       share promoted where the truth is no difference, and the limit the usual -0.5 %
    missed      share of two-sided 95 % intervals that miss the truth
    power       share promoted when the candidate really is 1, 2 or 5 % better than the limit
    skew        of the recorded clusters' means: where one cluster carries the difference, samples without
                it know nothing of it, and no resampling can be right

Writes benchmarks/results/gate_simulation.json.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from recording import machine, write_result

from moe_trainer.evaluation.scores import SMALLEST_DELTA
from moe_trainer.statistics.bootstrap import Ratio, bootstrap

LOSSES = Path(__file__).parent / "results" / "segment_losses.json"
SIZES = (10, 20, 40)
USES = (1, 3)
BETTER = (0.01, 0.02, 0.05)
RESAMPLES = 1999


def main() -> None:
    """Simulate every recorded pair and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=2000, help="simulated decisions of each pair and size")
    draws = parser.parse_args().draws
    losses = json.loads(LOSSES.read_text())
    rows = [
        {"anchor": anchor, "candidate": candidate, "current": current, "clusters": size}
        | simulate(column, candidate, current, size, draws)
        for anchor, column in losses.items()
        for candidate, current in pairs(anchor, column["nats"])
        for size in SIZES
    ]
    nominal = {f"use{uses}": alpha(uses) for uses in USES} | {"missed": 0.05}
    write_result(
        "gate_simulation",
        {"machine": machine(), "draws": draws, "nominal": nominal, "summary": summary(rows), "rows": rows},
    )
    print(json.dumps(summary(rows), indent=1))


def pairs(anchor: str, models: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs to compare on an anchor: twins, an Expert and its base, an Expert and a stranger."""
    own, base = f"{anchor}-1", "general-1"
    stranger = next(name for name in sorted(models) if name not in (own, base, f"{anchor}-2"))
    return [(f"{anchor}-2", own)] * (f"{anchor}-2" in models) + [(own, base), (stranger, base)]


def simulate(column: dict[str, Any], candidate: str, current: str, size: int, draws: int) -> dict[str, Any]:
    """Return the gate's error rates on holdouts of some clusters, drawn from the recorded ones."""
    nats = {name: np.array(column["nats"][name]) for name in (candidate, current)}
    sums, counts = by_cluster(np.log(nats[candidate] / nats[current]), np.array(column["clusters"]))
    sums -= counts * sums.sum() / counts.sum()  # now the true mean is 0, the limit
    generator = np.random.default_rng(7)
    promoted = dict.fromkeys(USES, 0)
    better = dict.fromkeys(BETTER, 0)
    equal = percentile = missed = 0
    for draw in range(draws):
        chosen = generator.integers(0, len(sums), size)
        sample = Ratio(sums[chosen], counts[chosen])
        found = bootstrap(sample, seed=draw, resamples=RESAMPLES)
        for uses in USES:
            promoted[uses] += found.upper(alpha(uses)) <= 0
        for shift in BETTER:
            better[shift] += found.upper(alpha(1)) <= shift
        equal += found.upper(alpha(1)) <= -SMALLEST_DELTA
        missed += not found.lower(0.025) <= 0 <= found.upper(0.025)
        percentile += percentile_upper(sample, draw, alpha(1)) <= 0
    return {
        **{f"falseUse{uses}": count / draws for uses, count in promoted.items()},
        "falsePercentile": percentile / draws,
        "equal": equal / draws,
        "missed": missed / draws,
        **{f"power{round(shift * 100)}": count / draws for shift, count in better.items()},
        "skew": skewness(sums / counts),
    }


def by_cluster(
    values: npt.NDArray[np.float64], clusters: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return each cluster's sum and number of values."""
    return np.bincount(clusters, weights=values), np.bincount(clusters).astype(np.float64)


def skewness(means: npt.NDArray[np.float64]) -> float:
    """Return the third standardised moment."""
    return float(((means - means.mean()) ** 3).mean() / means.std() ** 3)


def percentile_upper(sample: Ratio, seed: int, level: float) -> float:
    """Return the upper bound of the plain percentile bootstrap."""
    clusters = len(sample.numerators_G)
    drawn = np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), RESAMPLES)
    return float(np.quantile((drawn @ sample.numerators_G) / (drawn @ sample.denominators_G), 1 - level))


def alpha(uses: int) -> float:
    """Return the gate's level at the k-th use of a window."""
    return 0.05 * 6 / (math.pi**2 * uses**2)


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return each rate's median and largest value over the pairs, by the number of clusters."""
    rates = [name for name, value in rows[0].items() if isinstance(value, float)]
    return {
        str(size): {
            rate: {
                "median": float(np.median([row[rate] for row in rows if row["clusters"] == size])),
                "largest": max(row[rate] for row in rows if row["clusters"] == size),
            }
            for rate in rates
        }
        for size in SIZES
    }


if __name__ == "__main__":
    main()
