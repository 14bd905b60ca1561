"""How much memory the operator needs for many Experts, at its start on a cluster where everything exists already.

    python benchmarks/memory.py [--experts 1000] [--per-pool 20] [--output benchmarks/results/memory.json]

Starts a control plane of its own without a node, applies pools and Experts, and runs the operator as a process of this
machine. Without a node, no pod runs: each pool has a gateway and one started snapshot Job whose pods wait, and each Expert a
snapshot Job that waits for its turn. Once nothing is written any more, the operator is killed, started again and
measured: the peak of its resident memory until it has looked at everything again, and how much it keeps.
"""

import argparse
import contextlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from recording import machine, write_result

from moe_local.cluster import LocalCluster
from moe_local.folder import free_ports, load_network

ROOT = Path(__file__).parents[1]
API = "/apis/moe-operator.dev/v1alpha1"
NAMESPACE = "memory"
CONFIG = {
    "images": {"trainer": "moe-operator/trainer:0.1.0", "gateway": "moe-operator/gateway:0.1.0"},
    "profiles": {"cpu": {"requests": {"cpu": "100m", "memory": "128Mi"}}},
    "stores": {"corpora": {"claim": "corpora"}},
}
#: Seconds without a write after which a cluster counts as settled, and how long it may take to get there.
QUIET_SECONDS, LIMIT_SECONDS = 20.0, 1800.0
#: Seconds that the restarted operator is watched after it became ready.
WATCHED_SECONDS = 20.0
CLIENTS = 8


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experts", type=int, default=1000)
    parser.add_argument("--per-pool", type=int, default=20, help="Experts per pool; default: 20")
    parser.add_argument("--name", default="memory", help="of the result in benchmarks/results")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="moe-memory-") as folder:
        os.environ["MOE_LOCAL_STATE"] = folder
        cluster = LocalCluster("memory")
        try:
            cluster.up(operator=False, node=False)
            result = measure(cluster, Path(folder), options.experts, options.per_pool)
        finally:
            cluster.down(delete=True)
    result["machine"] = machine() | {"loadBefore": round(load, 2)}
    print(json.dumps(result, indent=1))
    write_result(options.name, result)


def measure(cluster: LocalCluster, folder: Path, experts: int, per_pool: int) -> dict[str, Any]:
    """Return what the operator needs with that many Experts, and without any."""
    cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    cluster.kubectl("create", "namespace", NAMESPACE)
    (folder / "operator.yaml").write_text(yaml.safe_dump(CONFIG))
    with running(cluster, folder) as operator:
        empty = watch(operator)
    apply_all(cluster, experts, per_pool)
    with running(cluster, folder) as operator:
        began = time.monotonic()
        watch(operator)
        seconds = wait_until_settled(cluster, operator) - began
        first = resident(operator.pid)
    with running(cluster, folder) as operator:
        restart = watch(operator)
        wait_until_settled(cluster, operator)
        restart |= resident(operator.pid)
    pools = -(-experts // per_pool)
    return {
        "experts": experts,
        "pools": pools,
        "objects": count(cluster),
        "withoutExperts": empty,
        "whileTheyWereMade": first | {"seconds": round(seconds)},
        "restart": restart,
        "kibPerExpert": round((restart["peakMiB"] - empty["peakMiB"]) * 1024 / experts, 1),
    }


@contextlib.contextmanager
def running(cluster: LocalCluster, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the operator, and kill it at the end; its ports are in the environment of this process."""
    metrics, health = free_ports(2)
    os.environ |= {"MOE_MEMORY_HEALTH": str(health), "MOE_MEMORY_METRICS": str(metrics)}
    command = [sys.executable, "-c", "from moe_operator.main import main; main()"]
    command += ["--config", str(folder / "operator.yaml")]
    command += ["--metrics-port", str(metrics), "--health-port", str(health), "--log-level", "WARNING"]
    environment = {
        **os.environ,
        "KUBECONFIG": str(cluster.kubeconfig),
        "POD_NAME": "memory",
        "POD_NAMESPACE": NAMESPACE,
    }
    with subprocess.Popen(command, env=environment) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def watch(operator: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait until the operator is ready and some seconds longer; return its memory and the seconds until it was ready."""
    began = time.monotonic()
    address = f"http://127.0.0.1:{os.environ['MOE_MEMORY_HEALTH']}/readyz"
    while not answers(address):
        if operator.poll() is not None or time.monotonic() > began + LIMIT_SECONDS:
            sys.exit("the operator did not get ready")
        time.sleep(0.1)
    ready = time.monotonic() - began
    time.sleep(WATCHED_SECONDS)
    return resident(operator.pid) | {"secondsUntilReady": round(ready, 1)}


def resident(pid: int) -> dict[str, Any]:
    """Return the resident memory of a process in MiB: its peak, and what it is now."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    peak, now = (int(fields[name].split()[0]) / 1024 for name in ("VmHWM", "VmRSS"))
    return {"peakMiB": round(peak, 1), "keptMiB": round(now, 1)}


def answers(address: str) -> bool:
    """Return whether a GET is answered with status 200."""
    try:
        with urllib.request.urlopen(address, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def apply_all(cluster: LocalCluster, experts: int, per_pool: int) -> None:
    """Create the data's claim, and pools with bound claims and their Experts."""
    pools = -(-experts // per_pool)
    claims = ["corpora", *(f"store-{number}" for number in range(pools))]
    core = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims"
    stores: list[tuple[str, dict[str, Any]]] = []
    for name in claims:
        use = {} if name == "corpora" else {"moe-operator.dev/use": "store"}
        stores += [("/api/v1/persistentvolumes", volume(name)), (core, claim(name, use))]
    create_all(cluster, stores)
    while not all(item["status"]["phase"] == "Bound" for item in listed(cluster, core)):
        time.sleep(2)
    requests = [
        (f"{API}/namespaces/{NAMESPACE}/expertpools", pool(f"pool-{number}", f"store-{number}"))
        for number in range(pools)
    ]
    requests += [
        (
            f"{API}/namespaces/{NAMESPACE}/experts",
            expert(f"expert-{number}", f"pool-{number // per_pool}"),
        )
        for number in range(experts)
    ]
    create_all(cluster, requests)


def create_all(cluster: LocalCluster, requests: list[tuple[str, dict[str, Any]]]) -> None:
    """Send creations over several connections."""
    parts = [requests[start::CLIENTS] for start in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(lambda part: create(cluster, part), parts))


def create(cluster: LocalCluster, requests: list[tuple[str, dict[str, Any]]]) -> None:
    """Send creations over one connection."""
    network = load_network(cluster.folder)
    assert network is not None
    certificates = cluster.folder.certificates
    context = ssl.create_default_context(cafile=str(certificates / "cluster-ca.pem"))
    context.load_cert_chain(str(certificates / "admin.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", network.apiserver, context=context, timeout=60)
    with contextlib.closing(connection):
        for path, manifest in requests:
            # kubectl apply leaves a copy of the manifest in an annotation.
            last = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(manifest)}
            manifest["metadata"]["annotations"] = last
            connection.request("POST", path, json.dumps(manifest), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 300:
                sys.exit(f"POST {path} was answered {answer.status}: {text[:500].decode()}")


def volume(name: str) -> dict[str, Any]:
    """Return a volume for one claim."""
    reference = {"namespace": NAMESPACE, "name": name}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": f"/nowhere/{name}"},
            "claimRef": reference,
            "storageClassName": "",
        },
    }


def claim(name: str, labels: dict[str, str]) -> dict[str, Any]:
    """Return the claim of a volume."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "volumeName": name,
            "storageClassName": "",
        },
    }


def pool(name: str, store: str) -> dict[str, Any]:
    """Return a pool on a claim."""
    return {
        "apiVersion": "moe-operator.dev/v1alpha1",
        "kind": "ExpertPool",
        "metadata": {"name": name},
        "spec": {"storage": {"claim": store}},
    }


def expert(name: str, pool_name: str) -> dict[str, Any]:
    """Return an Expert as long as those of the examples."""
    return {
        "apiVersion": "moe-operator.dev/v1alpha1",
        "kind": "Expert",
        "metadata": {"name": name},
        "spec": {
            "pool": pool_name,
            "domain": name,
            "base": {"preset": "tiny"},
            "data": {
                "sources": [{"store": "corpora", "path": f"{name}/*.txt"}],
                "filters": [{"name": "length", "min": 64}, {"name": "nearDuplicate", "threshold": 0.8}],
            },
            "training": {"learningRate": 0.0003, "maxSteps": 200},
            "targets": {"gainBitsPerByte": 0.05},
            "serving": {"minReplicas": 1, "maxReplicas": 2},
        },
    }


def wait_until_settled(cluster: LocalCluster, operator: subprocess.Popen[bytes]) -> float:
    """Wait until nothing has been written for some seconds; return when that began (monotonic seconds)."""
    limit = time.monotonic() + LIMIT_SECONDS
    since, version = time.monotonic(), newest_version(cluster)
    while time.monotonic() < since + QUIET_SECONDS:
        if queue_depth() > 0:
            since = time.monotonic()
        if operator.poll() is not None or time.monotonic() > limit:
            sys.exit("the cluster did not settle")
        time.sleep(4)
        if (now := newest_version(cluster)) != version:
            since, version = time.monotonic(), now
    return since


def queue_depth() -> float:
    """Return how many objects the operator still has to look at; infinite while it does not say."""
    address = f"http://127.0.0.1:{os.environ['MOE_MEMORY_METRICS']}/metrics"
    try:
        with urllib.request.urlopen(address, timeout=10) as response:
            lines = response.read().decode().splitlines()
    except OSError:
        return float("inf")
    found = [line.split()[1] for line in lines if line.startswith("moe_operator_queue_depth ")]
    return float(found[0]) if found else float("inf")


def newest_version(cluster: LocalCluster) -> int:
    """Return a number that grows with every write of Experts, pools and Jobs."""
    paths = [f"{API}/namespaces/{NAMESPACE}/{plural}" for plural in ("expertpools", "experts")]
    paths.append(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs")
    return sum(sum(versions(cluster, path)) for path in paths)


def versions(cluster: LocalCluster, path: str) -> Iterator[int]:
    """Yield the resourceVersion of every object of a collection."""
    return (int(item["metadata"]["resourceVersion"]) for item in listed(cluster, path))


def listed(cluster: LocalCluster, path: str) -> list[dict[str, Any]]:
    """Return the objects of a collection."""
    items: list[dict[str, Any]] = json.loads(cluster.kubectl("get", "--raw", path).stdout)["items"]
    return items


def count(cluster: LocalCluster) -> dict[str, int]:
    """Return how many objects there are of each kind."""
    paths = {"jobs": "/apis/batch/v1", "pods": "/api/v1"}
    return {
        name: len(list(versions(cluster, f"{path}/namespaces/{NAMESPACE}/{name}")))
        for name, path in paths.items()
    }


if __name__ == "__main__":
    main()
