"""Status writes: the whole status, only where it differs from what the object says already."""

from typing import Any

from moe_formats.format import Format
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool, ExpertPoolStatus
from moe_formats.resources.expert_revision import ExpertRevision, ExpertRevisionStatus
from moe_formats.resources.expert_status import ExpertStatus
from moe_formats.resources.labels import API_VERSION
from moe_operator.state import ObjectRef, StatusWrite


def status_write(
    target: Expert | ExpertPool | ExpertRevision,
    status: ExpertStatus | ExpertPoolStatus | ExpertRevisionStatus,
) -> tuple[StatusWrite, ...]:
    """Return the write of a status, or nothing if it says what is there."""
    written = _fields(status)
    if written == _fields(target.status):
        return ()
    metadata = target.metadata
    reference = ObjectRef(API_VERSION, type(target).__name__, metadata.namespace, metadata.name, metadata.uid)
    return (StatusWrite(target=reference, status=written, resource_version=metadata.resource_version),)


def _fields(status: Format) -> dict[str, Any]:
    """Return a status as the API spells it, without what is absent."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
