"""What the demo costs and what it reaches: time, CPU seconds, gains, specialization scores, routing, the refusal.

    python benchmarks/demo.py [--output benchmarks/results/demo.json]
    python benchmarks/demo.py --from-nothing        also a clone with empty caches: downloads and the Go build

CPU seconds are those of the whole machine while it ran, so nothing else should run beside it; ``loadBefore`` says
whether something did. Scores are read from the API server of the demo's cluster, which is left up.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from moe_client.cluster import Cluster
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_local.cluster import LocalCluster

ROOT = Path(__file__).parents[1]
POOL = "first-pool"


def main() -> None:
    """Measure, print the result as JSON and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from-nothing", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "demo.json")
    options = parser.parse_args()
    result: dict[str, object] = {"machine": machine()}
    if options.from_nothing:
        result["fromNothing"] = from_nothing()
    result["warm"] = timed([str(Path(sys.executable).with_name("moectl")), "demo"], ROOT, dict(os.environ))
    result.update(reached())
    text = json.dumps(result, indent=2) + "\n"
    options.output.write_text(text)
    print(text, end="")


def from_nothing() -> dict[str, object]:
    """`make demo` in a fresh clone, with a home, caches and state of its own."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        caches = {
            name: f"{folder}/{name.lower()}"
            for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "GOMODCACHE", "GOCACHE")
        }
        caches |= {"UV_CACHE_DIR": f"{folder}/uv", "PIP_CACHE_DIR": f"{folder}/pip"}
        environment = {**os.environ, **caches}
        try:
            return timed(["make", "demo"], clone, environment)
        finally:
            down = [".venv/bin/moectl", "local", "down", "--name", "demo", "--delete"]
            subprocess.run(down, cwd=clone, env=environment, check=False)
            # Go makes its module cache read-only.
            subprocess.run(["chmod", "-R", "u+w", folder], check=False)


def timed(command: list[str], folder: Path, environment: dict[str, str]) -> dict[str, object]:
    """Run a command that must succeed; return its wall time and the machine's CPU time."""
    load = os.getloadavg()[0]
    start, before = time.monotonic(), busy_seconds()
    run = subprocess.run(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, check=False)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {run.returncode}:\n{run.stdout[-4000:]}")
    return {
        "wallSeconds": round(time.monotonic() - start, 1),
        "cpuSeconds": round(busy_seconds() - before, 1),
        "loadBefore": round(load, 2),
        "prompts": next(
            (line.strip() for line in run.stdout.splitlines() if " right, by strategy " in line), None
        ),
        "refusal": [line.strip() for line in run.stdout.splitlines() if "Refused by clause" in line],
    }


def reached() -> dict[str, object]:
    """What the statuses of the demo's objects say."""
    cluster = Cluster(kubeconfig=LocalCluster(name="demo").kubeconfig, namespace="default")
    experts = cluster.all(Expert)
    table = cluster.get(ExpertPool, POOL).status.routing.table
    scored = {item.metadata.name: item.status.scores for item in experts if item.status.scores}
    return {
        "experts": {
            name: scores.model_dump(mode="json", by_alias=True, exclude_none=True)
            for name, scores in scored.items()
        },
        "targets": {item.metadata.name: item.status.targets for item in experts},
        "distilledTable": table.model_dump(mode="json", by_alias=True, exclude_none=True) if table else None,
    }


def busy_seconds() -> float:
    """CPU seconds that the machine has spent on anything."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


def machine() -> dict[str, object]:
    """The machine in general terms."""
    return {
        "cores": os.cpu_count(),
        "memoryGiB": round(psutil.virtual_memory().total / 2**30),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
