"""Decides which statuses have to be written: only those that differ from what the object has already."""

from typing import Any

from moe_formats.resources.base import CustomResource
from moe_formats.resources.conditions import ObjectStatus
from moe_formats.resources.labels import API_VERSION
from moe_operator.state import ObjectRef, StatusWrite


def status_write(target: CustomResource, status: ObjectStatus) -> tuple[StatusWrite, ...]:
    """Return the write of a whole status, or nothing if the object has this status already."""
    written = _fields(status)
    if written == _fields(target.status):
        return ()
    metadata = target.metadata
    reference = ObjectRef(API_VERSION, type(target).__name__, metadata.namespace, metadata.name, metadata.uid)
    return (StatusWrite(target=reference, status=written, resource_version=metadata.resource_version),)


def _fields(status: ObjectStatus) -> dict[str, Any]:
    """Return a status as the API server stores it, without absent fields."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
