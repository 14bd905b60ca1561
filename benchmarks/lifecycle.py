"""How often the lifecycle's statistics err, and what observing a pool costs.

    python benchmarks/lifecycle.py [--runs 4000] [--replays 400] [--only trends|observations|drift]

Trends: means of a quarter of an hour over a day, made of noise with an autocorrelation of 0 to 0.95 from one to the next
and of 5 to 40 % of the mean, first without any trend, then with a change of 20 and 50 % over the day. Mann-Kendall's test on
the same numbers stands beside it. Observations: 64 Experts with a month of noisy traffic, as the operator holds and
writes them. Drift: replays of recorded losses, see drift_replays.py.

Writes benchmarks/results/lifecycle.json.
"""

import argparse
import json
import math
import random
import time
import tracemalloc
from pathlib import Path
from statistics import NormalDist, mean
from typing import Any

from drift_replays import drift_replays
from recording import machine, write_result

from moe_operator.planner.trend import BLOCKS, trend_of
from moe_operator.traffic import HOUR, MINUTES, WRITTEN_BYTES, PoolTraffic, Usage, unpacked

RESULT = Path(__file__).parent / "results" / "lifecycle.json"
QUARTERS = 96
AUTOCORRELATIONS = (0.0, 0.5, 0.8, 0.9, 0.95)
NOISE = (0.05, 0.2, 0.4)
CHANGES = (0.0, 0.2, 0.5)
EXPERTS, HOURS = 64, 720


def main() -> None:
    """Measure everything, write it and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=4000, help="simulated days of each kind")
    parser.add_argument(
        "--replays", type=int, default=400, help="replayed years of each recorded pair of models"
    )
    parser.add_argument(
        "--only", choices=("trends", "observations", "drift"), help="keep the results of the others"
    )
    given = parser.parse_args()
    result = json.loads(RESULT.read_text()) if given.only else {"machine": machine()}
    if given.only in (None, "trends"):
        result |= {"runs": given.runs, "trends": all_trends(given.runs)}
    if given.only in (None, "observations"):
        result["observations"] = observations()
    if given.only in (None, "drift"):
        result["drift"] = drift_replays(given.replays)
    write_result("lifecycle", result)
    for row in result["trends"]:
        print(json.dumps(row))
    print(json.dumps(result["observations"]))
    print(json.dumps(result["drift"]["summary"], indent=1))


def all_trends(runs: int) -> list[dict[str, Any]]:
    """Return the rows of all simulated kinds of days."""
    return [
        trends(rho, noise, change, runs) for rho in AUTOCORRELATIONS for noise in NOISE for change in CHANGES
    ]


def trends(rho: float, noise: float, change: float, runs: int) -> dict[str, Any]:
    """Return the share of days in which a trend is found, by our test and by Mann-Kendall's at the same level."""
    draw = random.Random(f"{rho} {noise} {change}")
    days = [day(draw, rho, noise, change) for _ in range(runs)]
    found = [trend_of(blocks(values)).trend != "Stable" for values in days]
    return {
        "autocorrelation": rho,
        "noise": noise,
        "change": change,
        "found": round(mean(found), 4),
        "mannKendall": round(mean(mann_kendall(values) < 0.05 for values in days), 4),
    }


def day(draw: random.Random, rho: float, noise: float, change: float) -> list[float]:
    """Return the means of 96 quarters of an hour: 1 on average, with autoregressive noise of that standard deviation."""
    level, values = draw.gauss(0, noise), []
    for place in range(QUARTERS):
        level = rho * level + draw.gauss(0, noise * math.sqrt(1 - rho * rho))
        values.append(max(0.01, 1 + change * (place / (QUARTERS - 1) - 0.5) + level))
    return values


def blocks(values: list[float]) -> list[float]:
    """Return the means of four blocks."""
    length = len(values) // BLOCKS
    return [mean(values[place * length : (place + 1) * length]) for place in range(BLOCKS)]


def mann_kendall(values: list[float]) -> float:
    """Return the two-sided probability of Mann and Kendall's test, which takes every value for a new one."""
    count = len(values)
    score = sum(
        (later > earlier) - (later < earlier)
        for place, earlier in enumerate(values)
        for later in values[place + 1 :]
    )
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    return 2 * (1 - NormalDist().cdf(max(0, abs(score) - 1) / deviation))


def observations() -> dict[str, Any]:
    """Return what a full pool takes in memory and when it is written, and the time that this takes."""
    tracemalloc.start()
    pool = month(random.Random(0))
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    began = time.perf_counter()
    written = pool.packed()
    packing = time.perf_counter() - began
    began = time.perf_counter()
    hours = len(next(iter(unpacked(written).experts.values())).hours)
    return {
        "experts": EXPERTS,
        "memoryBytes": memory,
        "writtenBytes": len(written),
        "limitBytes": WRITTEN_BYTES,
        "hoursKept": hours,
        "packSeconds": round(packing, 3),
        "unpackSeconds": round(time.perf_counter() - began, 3),
    }


def month(draw: random.Random) -> PoolTraffic:
    """Return a pool of 64 Experts with 30 days of traffic that follows the time of day."""
    pool = PoolTraffic()
    for number in range(EXPERTS):
        rate = draw.choice([30, 300, 3000])
        for hour in range(HOURS):
            by_day = 1 + 0.5 * math.sin(hour / 24 * 2 * math.pi)
            for bucket in range(12) if hour >= HOURS - 25 else (0,):
                minutes = 5 if hour >= HOURS - 25 else 60
                pool.add(
                    f"00000000-0000-0000-0000-{number:012d}",
                    hour * HOUR + bucket * MINUTES,
                    some(draw, rate * by_day * minutes / 5, minutes),
                )
    return pool


def some(draw: random.Random, requests: float, minutes: float) -> Usage:
    """Return noisy traffic of about that many requests."""

    def about(value: float) -> float:
        return max(0, round(draw.gauss(value, math.sqrt(value))))

    number = about(requests)
    return Usage(
        observed_seconds=60 * minutes,
        replica_seconds=120 * minutes,
        in_flight_seconds=number * 1.7 + about(number) / 10,
        answered=number,
        failed=about(number * 0.001),
        left=about(number * 0.01),
        stood_in=about(number * 0.02),
        prompt_tokens=200 * about(number),
        completion_tokens=60 * about(number),
        first_token=tuple(about(number * math.exp(-abs(place - 6)) / 2.2) for place in range(15)),
        confidence=tuple(about(number * (place + 1) ** 2 / 385) for place in range(10)),
    )


if __name__ == "__main__":
    main()
