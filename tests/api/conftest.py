"""A real API server without a node: what it accepts and refuses, and what the chart makes of its values."""

import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_local.binary import ensure_controlplane
from moe_local.cluster import LocalCluster

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "moe-operator"

Render = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with kubectl and helm."""
    folder = tmp_path_factory.mktemp("bin")
    binary = ensure_controlplane()
    for program in ("kubectl", "helm"):
        (folder / program).symlink_to(binary)
    return folder


@pytest.fixture(scope="session")
def render(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Render the chart with values; raises CalledProcessError where helm refuses them."""
    folder = tmp_path_factory.mktemp("values")

    @cache
    def text_of(values: str) -> str:
        file = folder / "values.yaml"
        file.write_text(values)
        command = [
            programs / "helm",
            "template",
            "moe-operator",
            CHART,
            "--namespace",
            "moe-system",
            "--values",
            file,
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def rendered(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        output = text_of(yaml.safe_dump(values or {}))
        # The loader in C reads a megabyte of CRDs ten times as fast as the one in Python.
        return [document for document in yaml.load_all(output, yaml.CSafeLoader) if document]

    return rendered


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A control plane with the CRDs, and namespaces `moe-system` and `team` under Pod Security's `restricted`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOE_LOCAL_STATE", str(tmp_path_factory.mktemp("cluster")))
        cluster = LocalCluster(name="api-tests")
        try:
            cluster.up(operator=False, node=False)
            cluster.kubectl("create", "namespace", "team")
            for namespace in ("moe-system", "team"):
                cluster.kubectl(
                    "label",
                    "--overwrite",
                    "namespace",
                    namespace,
                    "pod-security.kubernetes.io/enforce=restricted",
                )
            cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
            for crd in (ROOT / "crds").glob("*.yaml"):
                name = yaml.load(crd.read_text(), yaml.CSafeLoader)["metadata"]["name"]
                cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=120s")
            yield cluster
        finally:
            cluster.down(delete=True)
