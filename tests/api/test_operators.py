"""Operators as processes on a real API server without a node: two that overlap, and one that loses a namespace."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from moe_local.cluster import LocalCluster
from moe_local.folder import free_ports
from moe_operator.cluster.lease import LEASE_NAME
from moe_operator.cluster.permissions import PERMISSIONS, Permission, lease_permissions

API = "/apis/moe-operator.dev/v1alpha1/namespaces"
CONFIG = {
    "images": {"trainer": "moe-operator/trainer:0.1.0", "gateway": "moe-operator/gateway:0.1.0"},
    "profiles": {"cpu": {}},
    "stores": {"corpora": {"claim": "corpora"}},
    "leaseSeconds": 3,
    "sweepSeconds": 1,
}
EXPERT = {
    "pool": "pool",
    "domain": "law",
    "base": {"preset": "tiny"},
    "data": {"sources": [{"store": "corpora", "path": "law/*.txt"}]},
}


class Operator:
    """One process, with its log and its health port."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, health: int) -> None:
        self.process, self._log, self._health = process, log, health

    def log(self) -> str:
        return self._log.read_text()

    def asks(self, path: str) -> tuple[int, str]:
        """Return status and text of an answer of the health port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/{path}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""


@contextlib.contextmanager
def running(folder: Path, kubeconfig: Path, lease: str, home: str, *namespaces: str) -> Iterator[Operator]:
    """Run an operator with a Lease of that name in the namespace ``home``, for some namespaces."""
    config, log, (metrics, health) = folder / f"{lease}.yaml", folder / f"{lease}.log", free_ports(2)
    config.write_text(yaml.safe_dump(CONFIG | {"lease": lease, "namespaces": list(namespaces)}))
    command = [sys.executable, "-c", "from moe_operator.main import main; main()", "--config", str(config)]
    command += ["--metrics-port", str(metrics), "--health-port", str(health)]
    environment = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "POD_NAMESPACE": home,
        "POD_NAME": f"pod-{lease}",
    }
    with (
        log.open("ab") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            yield Operator(process, log, health)
        finally:
            process.terminate()


def wait(what: str, condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.1)
    return found


def new_namespace(cluster: LocalCluster, name: str) -> None:
    cluster.kubectl("create", "namespace", name)


def apply_pool_and_expert(cluster: LocalCluster, namespace: str) -> None:
    for plural, kind, name, spec in (
        ("expertpools", "ExpertPool", "pool", {"storage": {"size": "1Gi"}}),
        ("experts", "Expert", "law", EXPERT),
    ):
        manifest = {
            "apiVersion": "moe-operator.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        }
        cluster.api().apply(f"{API}/{namespace}/{plural}/{name}", manifest)


def looked_at(cluster: LocalCluster, namespace: str) -> bool:
    """Return whether an operator has looked at the newest spec of the Expert."""
    expert = cluster.api().get(f"{API}/{namespace}/experts/law") or {"metadata": {}}
    status = expert.get("status", {})
    return bool(status.get("observedGeneration") == expert["metadata"].get("generation"))


def change(cluster: LocalCluster, namespace: str, seed: int) -> None:
    patch = json.dumps({"spec": {"seed": seed}})
    cluster.kubectl("patch", "expert", "law", "-n", namespace, "--type=merge", "-p", patch)


def test_of_two_releases_in_one_namespace_the_younger_does_nothing_and_both_name_both(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    new_namespace(cluster, "shared")
    home, kubeconfig = "shared", cluster.kubeconfig
    with running(tmp_path, kubeconfig, "a-first", home, "shared", "more") as first:
        wait("the first to be ready", lambda: first.asks("readyz")[0] == 200)
        with running(tmp_path, kubeconfig, "b-second", home, "shared") as second:
            wait("the second to stand aside", lambda: "b-second" in second.asks("readyz")[1])
            status, text = second.asks("readyz")
            assert status == 503
            for part in (
                "two releases",
                "in namespace shared",
                "shared/a-first",
                "held by pod-a-first",
                "shared/b-second",
            ):
                assert part in text
            assert second.asks("healthz")[0] == 200, "it must not be restarted for that"
            wait(
                "the first to name both",
                lambda: "shared/b-second, held by pod-b-second) stands aside" in first.log(),
            )
            apply_pool_and_expert(cluster, "shared")
            wait("the first to act", lambda: looked_at(cluster, "shared"))
            # Nobody writes any more: the versions of all objects stay.
            before = versions(cluster)
            time.sleep(2)
            assert versions(cluster) == before
            first.process.terminate()
            first.process.wait(20)
            wait("the second to take over", lambda: second.asks("readyz")[0] == 200)
            change(cluster, "shared", 1)
            wait("the second to act", lambda: looked_at(cluster, "shared"))


def versions(cluster: LocalCluster) -> list[str]:
    text = cluster.kubectl(
        "get", "experts,expertpools,pvc,jobs,configmaps", "-n", "shared", "-o", "json"
    ).stdout
    return [item["metadata"]["resourceVersion"] for item in json.loads(text)["items"]]


def test_a_namespace_that_is_deleted_stops_nothing_in_the_others(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    for name in ("home", "kept", "lost"):
        new_namespace(cluster, name)
    cluster.kubectl("create", "serviceaccount", "operator", "-n", "home")
    grant(cluster, "home", "lease", lease_permissions(LEASE_NAME))
    for name in ("kept", "lost"):
        grant(cluster, name, "operator", PERMISSIONS)
        apply_pool_and_expert(cluster, name)
    kubeconfig = kubeconfig_of(cluster, "home", "operator", tmp_path / "kubeconfig")
    with running(tmp_path, kubeconfig, LEASE_NAME, "home", "kept", "lost") as operator:
        for name in ("kept", "lost"):
            wait(f"{name} to be looked at", lambda name=name: looked_at(cluster, name))
        cluster.kubectl("delete", "namespace", "lost", "--wait=false")
        wait("the loss to be named", lambda: "in namespace lost may not be read" in operator.log())
        change(cluster, "kept", 1)
        wait("the other to go on", lambda: looked_at(cluster, "kept"))
        time.sleep(2)  # two sweeps more
        change(cluster, "kept", 2)
        wait("the other to go on after more sweeps", lambda: looked_at(cluster, "kept"))
        assert operator.process.poll() is None
        assert operator.asks("healthz") == (200, "ok")
    # A restart without the namespace does not hang while it reads.
    with running(tmp_path, kubeconfig, LEASE_NAME, "home", "kept", "lost") as operator:
        wait("a new process to be ready", lambda: operator.asks("readyz")[0] == 200)
        change(cluster, "kept", 3)
        wait("it to act", lambda: looked_at(cluster, "kept"))


def grant(cluster: LocalCluster, namespace: str, name: str, permissions: tuple[Permission, ...]) -> None:
    """Give the account `operator` of namespace home some permissions in a namespace, as the chart does."""
    rules = [
        {
            "apiGroups": [item.resources[0].group],
            "resources": list(item.plurals),
            "verbs": list(item.verbs),
            **({"resourceNames": list(item.names)} if item.names else {}),
        }
        for item in permissions
    ]
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name, "namespace": namespace}}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": "home"}
    objects = [
        {**head, "kind": "Role", "rules": rules},
        {**head, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]},
    ]
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))


def kubeconfig_of(cluster: LocalCluster, namespace: str, account: str, path: Path) -> Path:
    """Write a kubeconfig of a service account."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    token = cluster.kubectl("create", "token", account, "-n", namespace).stdout.strip()
    for user in config["users"]:
        user["user"] = {"token": token}
    path.write_text(yaml.safe_dump(config))
    return path
