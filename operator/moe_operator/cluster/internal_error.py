"""Builds the status of an object that the operator could not process, or for which it could not make what is needed."""

from datetime import datetime
from typing import Any

from pydantic import ValidationError

from moe_formats.resources.conditions import ConditionType
from moe_formats.resources.reasons import Reason
from moe_operator.cluster.api_client import ApiError
from moe_operator.cluster.contest import Contested
from moe_operator.cluster.ownership import NameTaken
from moe_operator.cluster.resources import ref_of
from moe_operator.state import Event, Manifest, Plan, StatusWrite

#: Reasons for which only what comes next cannot be made: what serves goes on serving.
_KEEPS_READY = frozenset({Reason.NAME_TAKEN, Reason.CHANGED_BY_OTHERS})


def error_plan(about: Manifest, error: Exception, now: datetime) -> Plan:
    """Return what has to be written so that people see the error: the object's status, once per error, and an event."""
    status = error_status(about, error, now)
    if status is None:
        return Plan()
    write = StatusWrite(ref_of(about), status, about["metadata"]["resourceVersion"])
    taken = isinstance(error, NameTaken)
    events = (Event(_reason(error), error_message(error), "Warning"),) if taken else ()
    return Plan(statuses=(write,), events=events)


def error_status(about: Manifest, error: Exception, now: datetime) -> dict[str, Any] | None:
    """Return the object's status with Stalled=True; None if it already says the same.

    Ready becomes False. Only if a name is taken, or others undo what is written, it stays True where it is: what serves goes on
    serving, and just what comes next cannot be made. The status is plain JSON, since the object may be one that cannot be parsed.
    """
    status: dict[str, Any] = dict(about.get("status") or {})
    reason = _reason(error)
    old = {item["type"]: item for item in status.get("conditions") or []}
    ready = reason in _KEEPS_READY and old.get(ConditionType.READY, {}).get("status") == "True"
    said = (
        {ConditionType.STALLED: "True"}
        if ready
        else {ConditionType.READY: "False", ConditionType.STALLED: "True"}
    )
    new = {
        kind: {
            "type": kind.value,
            "status": text,
            "reason": reason.value,
            "message": error_message(error),
            "observedGeneration": about["metadata"].get("generation", 0),
            "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        for kind, text in said.items()
    }
    if all(_same(old.get(kind.value), item) for kind, item in new.items()):
        return None
    for kind, item in new.items():
        before = old.get(kind.value)
        if before is not None and before["status"] == item["status"]:
            item["lastTransitionTime"] = before.get("lastTransitionTime", item["lastTransitionTime"])
        old[kind.value] = item
    stalled = "Stalled" if reason in _KEEPS_READY else "Error"
    phase = status.get("phase", "") if ready else stalled
    return {**status, "conditions": list(old.values()), "phase": phase, "reason": reason.value}


def _reason(error: Exception) -> Reason:
    if isinstance(error, Contested):
        return Reason.CHANGED_BY_OTHERS
    if isinstance(error, NameTaken):
        return Reason.NAME_TAKEN
    if isinstance(error, ValidationError):
        return Reason.INVALID_OBJECT
    refused = isinstance(error, ApiError) and 400 <= error.status < 500
    return Reason.REQUEST_REFUSED if refused else Reason.INTERNAL_ERROR


def error_message(error: Exception) -> str:
    """Return what is wrong and what to do, without values that would change with every attempt."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=True)[0]
        field = ".".join(str(part) for part in first["loc"])
        return (
            f"{field} is {str(first['input'])[:100]!r}: {first['msg']}. "
            "Correct the field; the object was probably created with another version of the CRD."
        )
    if isinstance(error, NameTaken):
        return str(error)
    if _reason(error) is Reason.REQUEST_REFUSED:
        return (
            f"the API server refuses what the operator has to do for this object: {str(error)[:1000]}. Is it a quota, an "
            "admission policy, or a permission that the operator lacks? It is tried again; other objects are not affected."
        )
    return (
        f"{type(error).__name__}: {str(error)[:1000]}. This is tried again; other objects are not affected."
    )


def _same(old: dict[str, Any] | None, new: dict[str, Any]) -> bool:
    keys = ("status", "reason", "message", "observedGeneration")
    return old is not None and all(old.get(key) == new[key] for key in keys)
