"""The golden manifests of the builders: the API server takes them, and their pods pass Pod Security's `restricted`."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.api.direct import ApiServer, path_of

from moe_local.cluster import LocalCluster

GOLDEN = Path(__file__).parents[1] / "unit" / "moe_operator" / "builders" / "golden"


def manifests() -> list[Any]:
    """Every golden manifest, named by its file, kind and name."""
    return [
        pytest.param(manifest, id=f"{file.stem}-{manifest['kind']}-{manifest['metadata']['name']}")
        for file in sorted(GOLDEN.rglob("*.yaml"))
        for manifest in yaml.load_all(file.read_text(), yaml.CSafeLoader)
        if isinstance(manifest, dict) and "kind" in manifest
    ]


@pytest.fixture(scope="module")
def nowhere(cluster: LocalCluster) -> str:
    """A namespace under Pod Security's `restricted` that holds nothing, so that no name is taken in it."""
    cluster.kubectl("create", "namespace", "golden")
    cluster.kubectl("label", "namespace", "golden", "pod-security.kubernetes.io/enforce=restricted")
    return "golden"


@pytest.mark.parametrize("manifest", manifests())
def test_the_api_server_takes_what_the_builders_make(
    cluster: LocalCluster, nowhere: str, manifest: dict[str, Any]
) -> None:
    dry_run(cluster, nowhere, manifest)
    template = manifest.get("spec", {}).get("template")
    if template:
        pod = {"metadata": {"name": "pod", "labels": template["metadata"].get("labels", {})}}
        dry_run(cluster, nowhere, {"apiVersion": "v1", "kind": "Pod", **pod, "spec": template["spec"]})


def dry_run(cluster: LocalCluster, namespace: str, manifest: dict[str, Any]) -> None:
    """Have the API server check a manifest in a namespace, strictly. It neither refuses it nor warns."""
    here = manifest | {"metadata": manifest["metadata"] | {"namespace": namespace}}
    answer = ApiServer(cluster).ask("POST", path_of(here) + "?dryRun=All&fieldValidation=Strict", here)
    assert answer.refused == ""
    assert answer.warnings == []
