"""Applies bootstrap.yaml to a fresh control plane: namespace, storage class, rights of the node agent."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

from moe_local.api import AdminAPI

_COLLECTIONS = {
    ("v1", "Namespace"): "/api/v1/namespaces",
    ("storage.k8s.io/v1", "StorageClass"): "/apis/storage.k8s.io/v1/storageclasses",
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    (
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
    ): "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}


def bootstrap_manifests() -> list[dict[str, Any]]:
    """Return the manifests in the order in which they are applied."""
    text = files("moe_local").joinpath("bootstrap.yaml").read_text()
    return list(yaml.safe_load_all(text))


def path_of(manifest: dict[str, Any]) -> str:
    """Return the API server's path of this object."""
    collection = _COLLECTIONS[manifest["apiVersion"], manifest["kind"]]
    return f"{collection}/{manifest['metadata']['name']}"


def apply_bootstrap(api: AdminAPI) -> None:
    """Apply the manifests; applying them again changes nothing."""
    for manifest in bootstrap_manifests():
        api.apply(path_of(manifest), manifest)
