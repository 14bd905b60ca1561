"""From `apply` to the snapshot Job: how long until it exists, over many Experts applied one after the other.

    python benchmarks/apply_latency.py [--name moe] [--experts 100] [--output benchmarks/results/apply_latency.json]

Works on a local cluster that runs, in a namespace of its own, which it deletes. The clock starts when the request
that applies an Expert is sent, and stops when a list of Jobs shows its snapshot Job (suspended counts: a pool's
snapshots run one at a time). The snapshots of the Experts before it run meanwhile, on a few small files.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from moe_local.cluster import LocalCluster

NAMESPACE = "apply-latency"
POLL_SECONDS = 0.005
LIMIT_SECONDS = 30.0
API = "/apis/moe-operator.dev/v1alpha1"


def main() -> None:
    """Measure, print the result as JSON and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="moe", help="of the local cluster; default: moe")
    parser.add_argument("--experts", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/apply_latency.json"))
    options = parser.parse_args()
    load = os.getloadavg()[0]
    seconds = measure(LocalCluster(options.name), options.experts)
    ordered = sorted(seconds)
    result = {
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "loadBefore": round(load, 2)},
        "experts": len(ordered),
        "secondsMedian": round(statistics.median(ordered), 3),
        "secondsP99": round(ordered[max(0, -(-99 * len(ordered) // 100) - 1)], 3),
        "secondsMax": round(ordered[-1], 3),
        "seconds": [round(value, 3) for value in seconds],
    }
    text = json.dumps(result, indent=2) + "\n"
    options.output.write_text(text)
    print(text, end="")


def measure(cluster: LocalCluster, experts: int) -> list[float]:
    """Apply Experts one after the other; return the seconds of each."""
    api = cluster.api()
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    api.apply(f"/api/v1/namespaces/{NAMESPACE}", namespace)
    try:
        prepare(cluster)
        return [apply_one(cluster, f"expert-{number}") for number in range(experts)]
    finally:
        api.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


def prepare(cluster: LocalCluster) -> None:
    """Make a claim with a few files, and a pool."""
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    apply(cluster, "/api/v1", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "corpora", claim)
    folder = wait(lambda: volume_of(cluster), "the claim to be bound")
    for number in range(5):
        (folder / f"{number}.txt").write_text(f"a text of {number} words, more or less\n" * 20)
    storage = {"storage": {"size": "1Gi"}}
    apply(cluster, API, "moe-operator.dev/v1alpha1", "ExpertPool", "expertpools", "pool", storage)
    time.sleep(1)


def apply_one(cluster: LocalCluster, name: str) -> float:
    """Apply an Expert and wait for its snapshot Job; return the seconds from one to the other."""
    source = {"store": "corpora", "path": "*.txt"}
    spec = {"pool": "pool", "domain": name, "base": {"preset": "tiny"}, "data": {"sources": [source]}}
    jobs = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs?labelSelector=moe-operator.dev%2Fexpert%3D{name}"
    began = time.monotonic()
    apply(cluster, API, "moe-operator.dev/v1alpha1", "Expert", "experts", name, spec)
    wait(lambda: (cluster.api().get(jobs) or {}).get("items"), f"the snapshot Job of {name}")
    return time.monotonic() - began


def apply(
    cluster: LocalCluster, root: str, api_version: str, kind: str, plural: str, name: str, spec: Any
) -> None:
    """Server-side apply one object."""
    manifest = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}
    cluster.api().apply(f"{root}/namespaces/{NAMESPACE}/{plural}/{name}", manifest)


def volume_of(cluster: LocalCluster) -> Path | None:
    """Return the folder behind the claim, once it is bound."""
    claim = cluster.api().get(f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims/corpora") or {}
    name = claim.get("spec", {}).get("volumeName")
    volume = cluster.api().get(f"/api/v1/persistentvolumes/{name}") if name else None
    return Path(volume["spec"]["local"]["path"]) if volume else None


def wait(condition: Any, what: str) -> Any:
    """Return the first true value of a condition, looked at every few milliseconds."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (value := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"waited {LIMIT_SECONDS:.0f} s for {what}")
        time.sleep(POLL_SECONDS)
    return value


if __name__ == "__main__":
    main()
