"""Builds Kueue from its Go modules and runs it as a process of this machine, against a local cluster."""

import hashlib
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_local.cluster import LocalCluster
from moe_local.folder import free_ports

SOURCE = Path(__file__).parent / "kueue"
MODULE = "sigs.k8s.io/kueue"
#: Where Kueue reads the certificate of its metrics from; it cannot be told another place.
METRICS_CERTIFICATES = Path("/etc/kueue/metrics/certs")
#: API groups that matter here: Kueue's own, and that of Jobs.
GROUPS = {"kueue.x-k8s.io", "batch"}
CRDS = ("workloads", "clusterqueues", "localqueues", "resourceflavors", "workloadpriorityclasses")
START_SECONDS = 120


def build() -> Path:
    """Return the program, built if it is not in the cache: five minutes on two cores. Skips the test where it cannot be."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Kueue is built from its Go modules: there is no `go` on PATH")
    if os.geteuid() != 0 or not shutil.which("openssl"):
        pytest.skip(f"Kueue reads certificates from {METRICS_CERTIFICATES}: root and `openssl` are needed")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256((SOURCE / "go.mod").read_bytes() + (SOURCE / "go.sum").read_bytes()).hexdigest()[:16]
    program = cache / "moe-operator" / "kueue" / key / "kueue"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        command = [go, "build", "-o", str(program.with_suffix(".new")), f"{MODULE}/cmd/kueue"]
        answer = subprocess.run(command, cwd=SOURCE, env=_environment(), capture_output=True, text=True)
        if answer.returncode != 0:
            pytest.skip(f"Kueue could not be built: {answer.stderr.strip()[-500:]}")
        program.with_suffix(".new").rename(program)
    return program


def start(program: Path, cluster: LocalCluster, folder: Path) -> "subprocess.Popen[bytes]":
    """Install Kueue's CRDs and webhooks, start its controller, and return its process once it is ready."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kueue"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    METRICS_CERTIFICATES.mkdir(parents=True, exist_ok=True)
    for file in (certificate, key):
        shutil.copy(file, METRICS_CERTIFICATES)
    health, metrics, hooks = free_ports(3)
    config = folder / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "config.kueue.x-k8s.io/v1beta2",
                "kind": "Configuration",
                "namespace": "kueue-system",
                "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
                "metrics": {"bindAddress": f"127.0.0.1:{metrics}"},
                "webhook": {"host": "127.0.0.1", "port": hooks, "certDir": str(folder)},
                "leaderElection": {"leaderElect": False},
                "internalCertManagement": {"enable": False},
                "integrations": {"frameworks": ["batch/job"]},
                "featureGates": {"VisibilityOnDemand": False},
            }
        )
    )
    cluster.kubectl("create", "namespace", "kueue-system")
    manifests = yaml.safe_dump_all(_manifests(certificate.read_bytes(), hooks))
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifests)
    names = [f"crd/{plural}.kueue.x-k8s.io" for plural in CRDS]
    deadline = time.monotonic() + START_SECONDS
    # A CRD that has no condition yet is an error to `kubectl wait`.
    while cluster.kubectl("wait", "--for=condition=Established", *names, check=False).returncode:
        assert time.monotonic() < deadline, "Kueue's CRDs are not established"
        time.sleep(0.5)
    with (folder / "kueue.log").open("wb") as log:
        command = [str(program), "--config", str(config), "--kubeconfig", str(cluster.kubeconfig)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + START_SECONDS
    while not _ready(health):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"Kueue did not start:\n{(folder / 'kueue.log').read_text()[-3000:]}")
        time.sleep(0.2)
    return process


def _manifests(certificate: bytes, port: int) -> list[dict[str, Any]]:
    """Return Kueue's CRDs and its webhooks for Jobs and its own kinds, pointed at this machine."""
    answer = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", MODULE],
        cwd=SOURCE,
        env=_environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    components = Path(answer.stdout.strip()) / "config" / "components"

    def at(path: str) -> dict[str, str]:
        return {"url": f"https://127.0.0.1:{port}{path}", "caBundle": b64encode(certificate).decode()}

    converted = set(
        re.findall(
            r"^- path: patches/webhook_in_(\w+)\.yaml",
            (components / "crd" / "kustomization.yaml").read_text(),
            re.MULTILINE,
        )
    )
    found: list[dict[str, Any]] = []
    for file in sorted((components / "crd" / "bases").glob("*.yaml")):
        crd = yaml.safe_load(file.read_text())
        if crd["spec"]["names"]["plural"] in converted:
            webhook = {"clientConfig": at("/convert"), "conversionReviewVersions": ["v1"]}
            crd["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
        found.append(crd)
    for hooks in yaml.safe_load_all((components / "webhook" / "manifests.yaml").read_text()):
        hooks["metadata"]["name"] = "kueue-" + hooks["metadata"]["name"]
        hooks["webhooks"] = [
            {**hook, "clientConfig": at(hook["clientConfig"]["service"]["path"])}
            for hook in hooks["webhooks"]
            if {group for rule in hook["rules"] for group in rule["apiGroups"]} <= GROUPS
        ]
        found.append(hooks)
    return found


def _environment() -> dict[str, str]:
    return {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
