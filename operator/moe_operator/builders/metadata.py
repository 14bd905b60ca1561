"""Metadata of children: the labels by which they are found, and the owner with which they are deleted."""

from collections.abc import Mapping
from typing import Any

from moe_formats.resources.base import CustomResource
from moe_formats.resources.labels import API_VERSION, EXPERT, FIELD_MANAGER, MANAGED_BY, POOL, REVISION, ROLE
from moe_operator.state import Role


def owner_reference(owner: CustomResource) -> dict[str, Any]:
    """Return the owner reference with which a child is deleted when its owner is.

    It has the owner's uid, so that an owner of the same name that is created later is never meant.
    """
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
    """Return the labels of a child. The operator watches only objects with the first of them."""
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
    owner: CustomResource,
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
