"""How long `moectl local up` takes to a Ready node and operator, and how much memory the whole cluster has then.

    python benchmarks/local_up.py [--runs 5] [--output benchmarks/results/local_up.json]

Each run starts from an empty state folder (the control plane's binary is built already, the page cache is warm),
then starts the running cluster again, then stops it. Times are those of the command, from its start to its end.
Memory is the sum of resident sets, pages that processes share counted in each: what the parts, the supervisors of
the containers and the operator have. upCpuSeconds is the CPU time of all of it up to then, helm and moectl included:
it depends less on what else the machine does (loadBefore). Idle CPU is what the processes used in 20 s without work.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from moe_local.binary import ensure_controlplane
from moe_local.cluster import LocalCluster
from moe_local.containers import find_supervisors

NAME = "bench"
IDLE_SECONDS = 20.0
MOECTL = str(Path(sys.executable).with_name("moectl"))


def main() -> None:
    """Measure, print the result as JSON and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/local_up.json"))
    options = parser.parse_args()
    ensure_controlplane(print)
    runs = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as state:
            os.environ["MOE_LOCAL_STATE"] = state
            runs.append(measure_run())
            print(json.dumps(runs[-1]), file=sys.stderr)
    result = {"machine": machine(), "summary": summary(runs), "runs": runs}
    text = json.dumps(result, indent=2) + "\n"
    options.output.write_text(text)
    print(text, end="")


def measure_run() -> dict[str, object]:
    """One cluster, from nothing to nothing. It is stopped also where the measurement fails."""
    try:
        load = os.getloadavg()[0]
        before = cpu_of_commands()
        fresh = moectl("up")
        processes = by_role(LocalCluster(NAME))
        cpu = cpu_of_commands() - before + cpu_of(processes)
        again = moectl("up")
        memory = {role: sum(p.memory_info().rss for p in found) >> 20 for role, found in processes.items()}
        idle = idle_cpu(processes)
    finally:
        down = moectl("down", "--delete")
    return {
        "loadBefore": round(load, 2),
        "upSeconds": fresh,
        "upCpuSeconds": round(cpu, 2),
        "upAgainSeconds": again,
        "downSeconds": down,
        "rssMiB": memory,
        "rssTotalMiB": sum(memory.values()),
        "idleCpuPercentOfOneCore": idle,
    }


def moectl(*arguments: str) -> float:
    """Run `moectl local …`; returns its wall time. Raises CalledProcessError with what it printed."""
    start = time.monotonic()
    subprocess.run([MOECTL, "local", *arguments, "--name", NAME], check=True, stdout=sys.stderr)
    return round(time.monotonic() - start, 2)


def by_role(cluster: LocalCluster) -> dict[str, list[psutil.Process]]:
    """Every process of the cluster, by what it is."""
    roles = {part: [psutil.Process(pid)] for part, pid in cluster.part_pids().items()}
    supervisors = find_supervisors(cluster.folder.path / "agent")
    roles["supervisors"] = supervisors
    roles["operator"] = [child for supervisor in supervisors for child in supervisor.children(recursive=True)]
    return roles


def idle_cpu(processes: dict[str, list[psutil.Process]]) -> float:
    """CPU time that all of them used while nothing was asked of them, in percent of one core."""
    before = cpu_of(processes)
    time.sleep(IDLE_SECONDS)
    return round(100 * (cpu_of(processes) - before) / IDLE_SECONDS, 1)


def cpu_of(processes: dict[str, list[psutil.Process]]) -> float:
    """Seconds of CPU that these processes have used so far."""
    return sum(sum(process.cpu_times()[:2]) for found in processes.values() for process in found)


def cpu_of_commands() -> float:
    """Seconds of CPU that commands which have ended have used so far, with what they started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def summary(runs: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Median and worst of each figure."""
    figures = [
        "upSeconds",
        "upCpuSeconds",
        "upAgainSeconds",
        "downSeconds",
        "rssTotalMiB",
        "idleCpuPercentOfOneCore",
    ]
    values = {figure: [float(str(run[figure])) for run in runs] for figure in figures}
    return {
        figure: {"median": statistics.median(found), "worst": max(found)} for figure, found in values.items()
    }


def machine() -> dict[str, object]:
    """What it was measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memoryGiB": round(psutil.virtual_memory().total / 2**30),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
