"""Decides which statuses have to be written: only those that differ from what the object has already.

A status is also kept small, since every watcher gets it at every change. If it is larger than its kind may be, the texts
for people in it are shortened, the longest first, until it fits: messages, and reasons why something is absent. Numbers,
names and digests are never cut.
"""

from typing import Any

from moe_formats.format import canonical_json
from moe_formats.resources.base import CustomResource
from moe_formats.resources.conditions import ObjectStatus
from moe_formats.resources.labels import API_VERSION
from moe_operator.state import ObjectRef, StatusWrite

#: Largest status of a kind, in bytes of JSON.
LARGEST = {"Expert": 32 * 1024, "ExpertPool": 256 * 1024}

#: Lengths to which texts are shortened, in bytes.
_LENGTHS = (2048, 1024, 512, 256, 128, 64, 32)

#: The end of a text that was shortened.
_CUT = "…"

#: Fields whose text is for people, or that are maps of such texts.
_TEXTS = frozenset({"absent", "message", "recommendedAction", "why"})


def status_write(target: CustomResource, status: ObjectStatus) -> tuple[StatusWrite, ...]:
    """Return the write of a whole status, or nothing if the object has this status already."""
    written = _fields(status, LARGEST.get(type(target).__name__))
    if written == _fields(target.status, None):
        return ()
    metadata = target.metadata
    reference = ObjectRef(API_VERSION, type(target).__name__, metadata.namespace, metadata.name, metadata.uid)
    return (StatusWrite(target=reference, status=written, resource_version=metadata.resource_version),)


def _fields(status: ObjectStatus, largest: int | None) -> dict[str, Any]:
    """Return a status as the API server stores it, without absent fields, in at most ``largest`` bytes."""
    fields: dict[str, Any] = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    if largest is None or _size(fields) <= largest:
        return fields
    shorter = (_shortened(fields, length) for length in _LENGTHS)
    return next((some for some in shorter if _size(some) <= largest), _shortened(fields, _LENGTHS[-1]))


def _size(fields: dict[str, Any]) -> int:
    return len(canonical_json(fields).encode())


def _shortened(value: Any, length: int, *, is_text: bool = False) -> Any:
    """Return a value with its texts for people shortened; with ``is_text``, the value is one, or a map of them."""
    if isinstance(value, dict):
        return {
            name: _shortened(item, length, is_text=is_text or name in _TEXTS) for name, item in value.items()
        }
    if isinstance(value, list):
        return [_shortened(item, length, is_text=is_text) for item in value]
    if is_text and isinstance(value, str) and len(value.encode()) > length:
        return value.encode()[: length - len(_CUT.encode())].decode(errors="ignore") + _CUT
    return value
