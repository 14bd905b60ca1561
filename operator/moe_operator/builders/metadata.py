"""Metadata of children: deterministic names, labels to find them by, and the owner they go with."""

from collections.abc import Mapping
from typing import Any

from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.labels import API_VERSION, EXPERT, FIELD_MANAGER, MANAGED_BY, POOL, REVISION, ROLE
from moe_operator.state import Role


def owner_reference(owner: Expert | ExpertPool) -> dict[str, Any]:
    """Return the reference that makes a child go with its owner, by uid and so never with a namesake."""
    return {
        "apiVersion": API_VERSION,
        "kind": type(owner).__name__,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
        "controller": True,
    }


def child_labels(
    *, pool: str, role: Role | None = None, expert: str | None = None, revision: str | None = None
) -> dict[str, str]:
    """Return the labels of a child; the operator watches by the first of them."""
    labels = {MANAGED_BY: FIELD_MANAGER, POOL: pool}
    if role is not None:
        labels[ROLE] = role.value
    if expert is not None:
        labels[EXPERT] = expert
    if revision is not None:
        labels[REVISION] = revision
    return labels


def child_metadata(
    *,
    name: str,
    owner: Expert | ExpertPool,
    labels: Mapping[str, str],
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the metadata of a child that is deleted with its owner."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": owner.metadata.namespace,
        "labels": dict(labels),
        "ownerReferences": [owner_reference(owner)],
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return metadata
