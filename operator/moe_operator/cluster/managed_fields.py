"""Whose fields an object's fields are, as the API server records it in ``metadata.managedFields``.

The operator creates objects with a plain create, which fails if the name is taken, and changes them by server-side
apply. The API server records the two as different: an apply removes only fields that an earlier apply has set. So the
fields that the create has set are handed to apply before the first one, as ``kubectl apply --server-side`` does with the
fields of an older ``kubectl apply``.
"""

from collections.abc import Mapping
from typing import Any

from moe_formats.resources.labels import FIELD_MANAGER
from moe_operator.state import Manifest


def handed_to_apply(live: Manifest) -> list[dict[str, Any]] | None:
    """Return the managedFields in which all that the operator has set in an object was set by apply; None if it was."""
    entries = [dict(entry) for entry in live["metadata"].get("managedFields") or []]
    written = [entry for entry in entries if _is_ours(entry, "Update")]
    if not written:
        return None
    applied = [entry for entry in entries if _is_ours(entry, "Apply")]
    fields: dict[str, Any] = {}
    for entry in (*applied, *written):
        fields = _union(fields, entry.get("fieldsV1") or {})
    others = [entry for entry in entries if entry not in written and entry not in applied]
    return [*others, {**written[0], "operation": "Apply", "fieldsV1": fields}]


def _is_ours(entry: Mapping[str, Any], operation: str) -> bool:
    """Return whether an entry is about what the operator has set in the object itself, not in a subresource."""
    who = entry.get("manager"), entry.get("operation"), entry.get("subresource", "")
    return who == (FIELD_MANAGER, operation, "")


def _union(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are in either of two sets; a set is a tree of field names."""
    names = dict.fromkeys((*one, *other))
    return {name: _union(one.get(name) or {}, other.get(name) or {}) for name in names}
