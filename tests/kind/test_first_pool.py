"""The demo's manifests on kind: real containers, real Pod Security, the chart as it is installed anywhere."""

import json
import os
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytest_kind import KindCluster

from moe_client.demo.corpora import write_corpora

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "01-first-pool"
LOCAL_VALUES = ROOT / "local" / "moe_local" / "chart-values.yaml"
EXPERTS = ("code", "mathematics", "speeches", "general")


def filler(image: str) -> dict[str, Any]:
    """A pod that does nothing but hold the claim `corpora`, so that text can be put into it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "filler"},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "filler",
                    "image": image,
                    "command": ["sleep", "infinity"],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [{"name": "corpora", "mountPath": "/corpora"}],
                }
            ],
            "volumes": [{"name": "corpora", "persistentVolumeClaim": {"claimName": "corpora"}}],
        },
    }


def fill(kind: KindCluster, text: Path) -> None:
    """Put the demo's text into the claim `corpora`."""
    write_corpora(text)
    kind.kubectl("apply", "-f", str(EXAMPLE / "00-corpora.yaml"))
    kind.kubectl(
        "apply", "-f", "-", input=yaml.safe_dump(filler(f"moe-operator/trainer:{version('moe-operator')}"))
    )
    kind.kubectl("wait", "--for=condition=Ready", "pod/filler", "--timeout=300s")
    for folder in sorted(text.iterdir()):
        kind.kubectl("cp", str(folder), f"filler:/corpora/{folder.name}")
    kind.kubectl("delete", "pod/filler", "--grace-period=1")


@pytest.mark.timeout(3600)
def test_the_demos_manifests_lead_to_served_experts(
    kind: KindCluster, programs: Path, tmp_path: Path
) -> None:
    for namespace in ("moe-system", "default"):
        kind.kubectl(
            "apply",
            "-f",
            "-",
            input=f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n",
        )
        kind.kubectl(
            "label", "--overwrite", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"
        )
    subprocess.run(
        [programs / "helm", "upgrade", "--install", "moe-operator", ROOT / "charts" / "moe-operator",
         "--namespace", "moe-system", "--values", LOCAL_VALUES],
        check=True, env=os.environ | {"KUBECONFIG": str(kind.kubeconfig_path)},
    )  # fmt: skip
    kind.kubectl("rollout", "status", "-n", "moe-system", "deployment/moe-operator", "--timeout=180s")
    fill(kind, tmp_path)
    kind.kubectl("apply", "-f", str(EXAMPLE))
    for name in EXPERTS:
        kind.kubectl("wait", "--for=condition=Ready", f"expert/{name}", "--timeout=2400s")
    kind.kubectl("wait", "--for=condition=Ready", "expertpool/first-pool", "--timeout=300s")
    served = json.loads(kind.kubectl("get", "experts", "-o", "json"))["items"]
    assert {item["metadata"]["name"]: item["status"]["serving"]["revision"] for item in served} == {
        item["metadata"]["name"]: item["status"]["currentRevision"] for item in served
    }
    assert len(served) == len(EXPERTS)
