"""What the operator writes while nothing changes, and when it is restarted: it should be nothing but its Lease.

    python benchmarks/settled.py [--name moe] [--seconds 60] [--output benchmarks/results/settled.json]

Looks at a local cluster that runs (`moectl local up`, `make demo`) and counts, in the API server's audit log,
the writes by the operator's service account: for some seconds, and again from the moment at which its process is
killed (-9) until as long after the new one is ready. Anything else than the Lease is listed by verb and path.
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from moe_local.cluster import LocalCluster
from moe_local.folder import load_network

OPERATOR = "system:serviceaccount:moe-system:moe-operator"
READS = {"get", "list", "watch"}


def main() -> None:
    """Measure, print the result as JSON and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="moe", help="of the local cluster; default: moe")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/settled.json"))
    options = parser.parse_args()
    cluster = LocalCluster(options.name)
    result = {
        "machine": {"cpus": os.cpu_count(), "system": platform.platform()},
        "objects": count_objects(cluster),
        "seconds": options.seconds,
        "settled": while_settled(cluster, options.seconds),
        "restarted": across_restart(cluster, options.seconds),
        "operatorRssMiB": round(operator_process(cluster).memory_info().rss / 2**20),
    }
    text = json.dumps(result, indent=2) + "\n"
    options.output.write_text(text)
    print(text, end="")


def while_settled(cluster: LocalCluster, seconds: float) -> dict[str, Any]:
    """Count what is written in some seconds."""
    log = AuditLog(cluster)
    time.sleep(seconds)
    return summary(log.writes())


def across_restart(cluster: LocalCluster, seconds: float) -> dict[str, Any]:
    """Kill the operator, wait until its successor is ready, and count until some seconds after that."""
    log = AuditLog(cluster)
    old = operator_process(cluster)
    old.send_signal(signal.SIGKILL)
    old.wait(30)
    began = time.monotonic()
    while not (running := find_operator(cluster)) or not log.took_lease():
        if time.monotonic() > began + 120:
            sys.exit("the operator did not come back within 120 s: see its log by kubectl")
        time.sleep(0.1)
    ready = time.monotonic() - began
    time.sleep(seconds)
    if not running[0].is_running():
        sys.exit("the operator was restarted again meanwhile: see its log by kubectl")
    return {"secondsToLease": round(ready, 2), **summary(log.writes())}


class AuditLog:
    """The API server's audit log, from now on."""

    def __init__(self, cluster: LocalCluster) -> None:
        """Remember where the log ends now."""
        self._path = cluster.folder.path / "log" / "audit.jsonl"
        self._start = self._path.stat().st_size

    def writes(self) -> list[tuple[str, str]]:
        """Return (verb, path) of every write by the operator."""
        with self._path.open("rb") as log:
            log.seek(self._start)
            entries = [json.loads(line) for line in log if line.endswith(b"\n")]
        return [
            (entry["verb"], entry["requestURI"].partition("?")[0])
            for entry in entries
            if entry["user"]["username"] == OPERATOR and entry["verb"] not in READS
        ]

    def took_lease(self) -> bool:
        """Say whether the operator has written its Lease."""
        return any(is_lease(path) for _, path in self.writes())


def is_lease(path: str) -> bool:
    """Say whether a path is that of the operator's Lease."""
    return path.endswith(("/leases/moe-operator", "/leases"))


def is_observation(path: str) -> bool:
    """Say whether a path is that of what was observed of a pool's traffic."""
    return "/configmaps/" in path and path.endswith("-observations")


def summary(writes: list[tuple[str, str]]) -> dict[str, Any]:
    """Count the writes of the Lease and of observations, and list all others."""
    expected = (is_lease, is_observation)
    others = Counter(
        f"{verb} {path}" for verb, path in writes if not any(is_one(path) for is_one in expected)
    )
    return {
        "leaseWrites": sum(is_lease(path) for _, path in writes),
        "observationWrites": sum(is_observation(path) for _, path in writes),
        "otherWrites": sum(others.values()),
        "others": dict(others),
    }


def find_operator(cluster: LocalCluster) -> list[psutil.Process]:
    """Return the operator's processes on a cluster, by the address of its API server."""
    found = []
    network = load_network(cluster.folder)
    port = network.apiserver if network else None
    for process in psutil.process_iter(["cmdline"]):
        if any(part.endswith("bin/moe-operator") for part in (process.info["cmdline"] or [])[:2]):
            try:
                environment = process.environ()
            except psutil.Error:
                continue
            if environment.get("KUBERNETES_SERVICE_PORT") == str(port):
                found.append(process)
    return found


def operator_process(cluster: LocalCluster) -> psutil.Process:
    """Return the one process of the operator."""
    found = find_operator(cluster)
    if len(found) != 1:
        sys.exit(f"cluster {cluster.folder.name} has {len(found)} operators, not 1: moectl local up")
    return found[0]


def count_objects(cluster: LocalCluster) -> dict[str, int]:
    """Return how many objects the operator looks after."""
    counts = {}
    for plural in ("expertpools", "experts", "expertrevisions"):
        listing = cluster.api().get(f"/apis/moe-operator.dev/v1alpha1/{plural}")
        counts[plural] = len(listing["items"]) if listing else 0
    return counts


if __name__ == "__main__":
    main()
