"""What the demo costs and what it reaches: time, CPU seconds, the matrix, scores, routing, the refusal.

    python benchmarks/demo.py                   run the demo, measure its time and record what it reached
    python benchmarks/demo.py --from-nothing    first also in a clone with empty caches: downloads and Go build included
    python benchmarks/demo.py --scores-only     run the demo and record what it reached; keep the recorded times

CPU seconds are those of the whole machine while the demo ran, so nothing else should run at the same time;
``loadBefore`` says whether something did. On a busy machine use ``--scores-only``: scores do not depend on the load.
``warm.sameRun`` says whether times and scores are of the same run.
Scores are read from the API server of the demo's cluster, which is left running.
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

from moe_client.cli.matrix import promoted_revisions
from moe_client.cluster import Cluster
from moe_client.tables import matrix_rows
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision
from moe_local.cluster import LocalCluster

ROOT = Path(__file__).parents[1]
POOL = "first-pool"


def main() -> None:
    """Measure, print the result as JSON and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from-nothing", action="store_true")
    parser.add_argument("--scores-only", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "demo.json")
    options = parser.parse_args()
    result: dict[str, object] = {"machine": machine()}
    if options.from_nothing:
        result["fromNothing"], _ = from_nothing()
    moectl = str(Path(sys.executable).with_name("moectl"))
    times, screen = timed([moectl, "demo"], ROOT, dict(os.environ))
    result["warm"] = {**times, "sameRun": True}
    if options.scores_only:
        before = json.loads(options.output.read_text())
        result["warm"] = {**before["warm"], "sameRun": False}
        if "fromNothing" in before:
            result["fromNothing"] = before["fromNothing"]
    result["prompts"] = next(line.strip() for line in screen.splitlines() if " right, by strategy " in line)
    result.update(reached())
    text = json.dumps(result, indent=2) + "\n"
    options.output.write_text(text)
    print(text, end="")


def from_nothing() -> tuple[dict[str, float], str]:
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


def timed(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[dict[str, float], str]:
    """Run a command that must succeed; return its wall time and the machine's CPU time, and what it printed."""
    load = os.getloadavg()[0]
    start, before = time.monotonic(), busy_seconds()
    run = subprocess.run(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, check=False)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {run.returncode}:\n{run.stdout[-4000:]}")
    times = {
        "wallSeconds": round(time.monotonic() - start, 1),
        "cpuSeconds": round(busy_seconds() - before, 1),
        "loadBefore": round(load, 2),
    }
    return times, run.stdout


def reached() -> dict[str, object]:
    """What the statuses of the demo's objects say."""
    cluster = Cluster(kubeconfig=LocalCluster(name="demo").kubeconfig, namespace="default")
    experts = cluster.all(Expert)
    table = cluster.get(ExpertPool, POOL).status.routing.table
    scored = {item.metadata.name: item.status.scores for item in experts if item.status.scores}
    return {
        "bitsPerByte": {
            name: row.bits_per_byte for name, row in matrix_rows(promoted_revisions(cluster, POOL)).items()
        },
        "experts": {
            name: scores.model_dump(mode="json", by_alias=True, exclude_none=True)
            for name, scores in scored.items()
        },
        "targets": {item.metadata.name: item.status.targets for item in experts},
        "refused": refused(cluster),
        "distilledTable": table.model_dump(mode="json", by_alias=True, exclude_none=True) if table else None,
    }


def refused(cluster: Cluster) -> dict[str, object]:
    """Every revision that the gate refused: the clause, its message, and the comparisons with their intervals."""
    found: dict[str, object] = {}
    for revision in cluster.all(ExpertRevision):
        verdict, evidence = revision.status.verdict, revision.status.evidence
        if verdict is not None and evidence is not None and verdict.outcome == "Refused":
            found[revision.metadata.name] = {
                "clause": verdict.clause,
                "message": verdict.message,
                "comparisons": [
                    item.model_dump(mode="json", by_alias=True, exclude_none=True)
                    for item in evidence.decisions
                ],
            }
    return found


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
