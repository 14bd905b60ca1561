"""The headless Service of a gang: by it, the pods of a training Job on several nodes find one another by name."""

from typing import Any

from moe_formats.resources.expert import Expert
from moe_formats.resources.labels import EXPERT, ROLE
from moe_operator.builders.metadata import child_labels, child_metadata
from moe_operator.state import Role


def gang_name(expert: Expert) -> str:
    """Return the name of the Service of an Expert's gang. A pod's DNS name is ``<job>-<index>.<gang>``."""
    return f"{expert.metadata.name}-gang"


def build_gang_service(*, expert: Expert) -> dict[str, Any]:
    """Return the Service. Its names exist before pods are ready, since pods have to meet to become ready."""
    name = expert.metadata.name
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(
            name=gang_name(expert),
            owner=expert,
            labels=child_labels(pool=expert.spec.pool, role=Role.TRAIN, expert=name),
        ),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {EXPERT: name, ROLE: Role.TRAIN.value},
        },
    }
