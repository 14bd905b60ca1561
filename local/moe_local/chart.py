"""Installs the operator with its chart and helm, as on any cluster."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from moe_local.api import AdminAPI
from moe_local.errors import LocalClusterError
from moe_local.folder import ClusterFolder, write_private

CHART = Path(__file__).parents[2] / "charts" / "moe-operator"
LOCAL_VALUES = Path(__file__).with_name("chart-values.yaml")
NAMESPACE = "moe-system"
RELEASE = "moe-operator"
PENDING = "owner%3Dhelm%2Cname%3Dmoe-operator%2Cstatus+in+%28pending-install%2Cpending-upgrade%2Cpending-rollback%29"
"""Label selector, URL-quoted, of what a killed helm leaves behind: a release that no later helm would touch."""

Helm = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def install_chart(folder: ClusterFolder, api: AdminAPI, helm: Helm, values: Sequence[Path]) -> bool:
    """Install or upgrade the release; return False if the same chart with the same values is already installed.

    Raises LocalClusterError with helm's own message.
    """
    files = (LOCAL_VALUES, *values)
    for file in files:
        if not file.is_file():
            raise LocalClusterError(
                f"--values {file}: there is no such file", fix="give the path of a YAML file"
            )
    digest, remembered = chart_digest(CHART, files), _remembered(folder)
    if (
        remembered.exists()
        and remembered.read_text() == digest
        and _listed(api, "/apis/apps/v1", "deployments")
    ):
        return False
    api.delete_all(f"/api/v1/namespaces/{NAMESPACE}/secrets", PENDING)
    arguments = ["upgrade", "--install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--create-namespace"]
    for file in files:
        arguments += ["--values", str(file)]
    answer = helm(arguments)
    if answer.returncode != 0:
        raise LocalClusterError(
            f"helm refused the chart:\n{answer.stderr.strip()}", fix="check the files given as --values"
        )
    write_private(remembered, digest)
    return True


def is_installed(folder: ClusterFolder) -> bool:
    """Return whether the chart was ever installed on this cluster."""
    return _remembered(folder).exists()


def chart_digest(chart: Path, values: Sequence[Path]) -> str:
    """Return a digest of the chart and the values, which changes whenever the installation would."""
    digest = hashlib.sha256()
    for file in [*sorted(path for path in chart.rglob("*") if path.is_file()), *values]:
        digest.update(f"{file}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def operator_ready(api: AdminAPI) -> bool:
    """Return whether the Deployment has all replicas of its newest generation, and each answers that it is ready.

    The pods themselves are asked, because after a restart of the whole cluster their status is still the old one.
    """
    deployments = _listed(api, "/apis/apps/v1", "deployments")
    pods = _listed(api, "/api/v1", "pods") if deployments else []
    return bool(pods) and all(map(_complete, deployments)) and all(map(_answers, pods))


def _remembered(folder: ClusterFolder) -> Path:
    return folder.path / "chart.digest"


def _listed(api: AdminAPI, group: str, kind: str) -> list[dict[str, Any]]:
    """Return the release's own objects of a kind; gateways and servers of pools have other labels."""
    selector = f"app.kubernetes.io%2Finstance%3D{RELEASE}"
    listing = api.get(f"{group}/namespaces/{NAMESPACE}/{kind}?labelSelector={selector}")
    return list(listing["items"]) if listing else []


def _complete(deployment: dict[str, Any]) -> bool:
    wanted, status = deployment["spec"].get("replicas", 1), deployment.get("status", {})
    return bool(
        status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and status.get("updatedReplicas", 0) >= wanted
        and status.get("readyReplicas", 0) >= wanted
        and status.get("replicas", 0) == wanted
    )


def _answers(pod: dict[str, Any]) -> bool:
    """Return whether the pod's readiness probe succeeds when it is made from here."""
    container = pod["spec"]["containers"][0]
    probe = container["readinessProbe"]["httpGet"]
    ports = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
    connection = HTTPConnection(
        pod["status"].get("podIP", ""), ports.get(probe["port"], probe["port"]), timeout=2
    )
    try:
        connection.request("GET", probe["path"])
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
