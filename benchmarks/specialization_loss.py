"""What the specialization loss does: the same Experts with and without it, from several seeds.

    python benchmarks/specialization_loss.py [--folder DIR] [--steps 150] [--seeds 3] [--domains code speeches]

Trains domains of examples/01-first-pool from one base, by the trainer's own commands, in arms:

    weight 0              the ablation
    weight 0.1            the loss; the base is computed beside the model, which costs time (other --weights at will)
    weight 0, more steps  the ablation again with as many steps as take the CPU time that the first weight took

and shows gain, specialization score and forgetting of each, and each arm's difference to the ablation on the
same domain and seed. Writes benchmarks/results/specialization_loss.json.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from pool_on_disk import PoolOnDisk
from recording import machine, write_result
from specialization import BASE, SALT, example_specs, holdout_fraction, specs_sources, training_of

from moe_client.demo.corpora import write_corpora
from moe_formats.job_config import HoldoutRule
from moe_formats.job_report import EvaluateHeadline

ABLATION = "weight 0"
SCORES = ("gain", "specialization_score", "forgetting")


def main() -> None:
    """Run every arm and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="keep everything here instead of in a temporary folder")
    parser.add_argument("--steps", type=int, default=150, help="optimizer steps of an Expert")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.1])
    parser.add_argument("--domains", nargs="+", default=["code", "speeches"], help="Experts that are trained")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        pool, specs = prepared(arguments.folder or Path(temporary))
        domains = {name: specs[name] for name in arguments.domains}
        seconds: dict[str, float] = {}
        runs: list[dict[str, Any]] = []
        for weight in (0.0, *arguments.weights):
            arm = f"weight {weight:g}"
            spec = {"max_steps": arguments.steps, "specialization_loss_weight": weight}
            seconds[arm] = run_arm(pool, arm, domains, spec, arguments.seeds, runs)
        steps = round(arguments.steps * seconds[f"weight {arguments.weights[0]:g}"] / seconds[ABLATION])
        more = f"weight 0, {steps} steps"
        seconds[more] = run_arm(pool, more, domains, {"max_steps": steps}, arguments.seeds, runs)
        write_result(
            "specialization_loss",
            {
                "machine": machine(),
                "steps": arguments.steps,
                "seeds": arguments.seeds,
                "domains": sorted(domains),
                "trainingCpuSeconds": {arm: round(value, 1) for arm, value in seconds.items()},
                "arms": {arm: summary(runs, arm) for arm in seconds},
                "runs": runs,
            },
        )


def prepared(folder: Path) -> tuple[PoolOnDisk, dict[str, Any]]:
    """Return a pool with the example's snapshots and its base, and the example's specs."""
    specs = example_specs()
    write_corpora(folder / "sources" / "corpora", [name for name in specs if name != BASE])
    pool = PoolOnDisk(folder, HoldoutRule(fraction=holdout_fraction(), salt=SALT))
    for name, sources in specs_sources(specs).items():
        pool.snapshot(name, None if name == BASE else name, sources)
    pool.train(BASE, training_of(specs[BASE]), base=None)
    return pool, specs


def run_arm(
    pool: PoolOnDisk,
    arm: str,
    specs: dict[str, Any],
    changes: dict[str, Any],
    seeds: int,
    runs: list[dict[str, Any]],
) -> float:
    """Train and evaluate every domain from every seed; return the CPU seconds of training."""
    seconds = 0.0
    for name in specs:
        for seed in range(1, seeds + 1):
            spec = training_of(specs[name]).model_copy(update=changes)
            made = pool.train(name, spec, base=BASE, seed=seed)
            report = json.loads((pool.store / made.path / "report.json").read_text())
            seconds += report["provenance"]["cpuSeconds"]
            runs.append({"arm": arm, "domain": name, "seed": seed} | scores(pool.evaluate(name, base=BASE)))
    return seconds


def scores(headline: EvaluateHeadline) -> dict[str, float | None]:
    """Return the estimates of an evaluation; None where one is absent."""
    found = {name: getattr(headline, name) for name in SCORES}
    return {name: interval.value if interval else None for name, interval in found.items()}


def summary(runs: list[dict[str, Any]], arm: str) -> dict[str, Any]:
    """Return each score's mean over domains and seeds, and its difference to the ablation, pair by pair."""

    def of(wanted: str, score: str) -> dict[tuple[str, int], float]:
        return {
            (run["domain"], run["seed"]): run[score]
            for run in runs
            if run["arm"] == wanted and run[score] is not None
        }

    found: dict[str, Any] = {}
    for score in SCORES:
        mine, without = of(arm, score), of(ABLATION, score)
        pairs = [mine[pair] - without[pair] for pair in mine.keys() & without.keys()]
        found[score] = {
            "mean": statistics.fmean(mine.values()) if mine else None,
            "lessAblation": statistics.fmean(pairs) if pairs else None,
            "spreadOfPairs": statistics.stdev(pairs) if len(pairs) > 1 else None,
            "pairsAbove": sum(pair > 0 for pair in pairs),
            "pairs": len(pairs),
        }
    return found


if __name__ == "__main__":
    main()
