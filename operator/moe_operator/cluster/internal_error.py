"""Builds the status of an object that the operator could not process."""

from datetime import datetime
from typing import Any

from pydantic import ValidationError

from moe_formats.resources.conditions import ConditionType
from moe_formats.resources.reasons import Reason
from moe_operator.state import Manifest


def error_status(about: Manifest, error: Exception, now: datetime) -> dict[str, Any] | None:
    """Return the object's status with Stalled=True and Ready=False; None if it already says the same.

    The status is plain JSON, since the object may be one that cannot be parsed.
    """
    status: dict[str, Any] = dict(about.get("status") or {})
    generation = about["metadata"].get("generation", 0)
    message = error_message(error)
    new = {
        kind: {
            "type": kind.value,
            "status": text,
            "reason": Reason.INTERNAL_ERROR.value,
            "message": message,
            "observedGeneration": generation,
            "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        for kind, text in ((ConditionType.READY, "False"), (ConditionType.STALLED, "True"))
    }
    old = {item["type"]: item for item in status.get("conditions") or []}
    if all(_same(old.get(kind.value), item) for kind, item in new.items()):
        return None
    for kind, item in new.items():
        before = old.get(kind.value)
        if before is not None and before["status"] == item["status"]:
            item["lastTransitionTime"] = before.get("lastTransitionTime", item["lastTransitionTime"])
        old[kind.value] = item
    reason = Reason.INTERNAL_ERROR.value
    return {**status, "conditions": list(old.values()), "phase": "Error", "reason": reason}


def error_message(error: Exception) -> str:
    """Return what is wrong and what to do, without values that would change with every attempt."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=True)[0]
        field = ".".join(str(part) for part in first["loc"])
        return (
            f"{field} is {str(first['input'])[:100]!r}: {first['msg']}. "
            "Correct the field; the object was probably created with another version of the CRD."
        )
    return (
        f"{type(error).__name__}: {str(error)[:1000]}. This is tried again; other objects are not affected."
    )


def _same(old: dict[str, Any] | None, new: dict[str, Any]) -> bool:
    keys = ("status", "reason", "message", "observedGeneration")
    return old is not None and all(old.get(key) == new[key] for key in keys)
