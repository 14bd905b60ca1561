"""The PersistentVolumeClaim of a pool's store. It has no owner, so deleting a pool deletes no weights."""

from typing import Any

from moe_formats.resources.expert_pool import ExpertPool
from moe_operator.builders.metadata import child_labels
from moe_operator.state import Role


def build_store(*, pool: ExpertPool) -> dict[str, Any]:
    """Return the claim of a pool that asks for one with ``spec.storage.size``."""
    storage = pool.spec.storage
    spec: dict[str, Any] = {
        "accessModes": [storage.access_mode],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class is not None:
        spec["storageClassName"] = storage.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": pool.claim,
            "namespace": pool.metadata.namespace,
            "labels": child_labels(pool=pool.metadata.name, role=Role.STORE),
        },
        "spec": spec,
    }
