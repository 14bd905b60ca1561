"""Conditions in the shape of metav1.Condition, and how a list of them is updated."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from moe_formats.format import Format
from moe_formats.resources.reasons import Reason


class ConditionType(StrEnum):
    """Every condition that an object can have. Tools that follow kstatus read Ready, Reconciling and Stalled."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DATA_READY = "DataReady"
    BASE_MODEL_READY = "BaseModelReady"
    TRAINED = "Trained"
    EVALUATED = "Evaluated"
    TARGETS_MET = "TargetsMet"
    SERVING = "Serving"
    PAUSED = "Paused"
    PROMOTED = "Promoted"
    STORAGE_READY = "StorageReady"
    EXPERTS_READY = "ExpertsReady"
    GATEWAY_READY = "GatewayReady"
    TABLE_READY = "TableReady"
    APPROVED = "Approved"
    EFFECT_SEEN = "EffectSeen"
    DRIFTED = "Drifted"


class Condition(Format):
    """One observation of an object's state, at its last change."""

    type: str = Field(max_length=64, description="Name of the condition, for example `Ready`.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether the condition holds.")
    reason: str = Field(
        max_length=128, description="Why, as one CamelCase word; docs/reasons.md explains each."
    )
    message: str = Field(
        default="", max_length=4096, description="What the state is, why, and what to do next."
    )
    observed_generation: int = Field(
        default=0, ge=0, description="Generation of the spec that the condition was computed from."
    )
    last_transition_time: datetime | None = Field(
        default=None, description="When `status` last changed. Absent before the condition is stored."
    )


class ObjectStatus(Format):
    """What the status of every kind begins with."""

    observed_generation: int = Field(
        default=0, description="Generation of the spec that this status describes."
    )
    phase: str = Field(
        default="",
        max_length=40,
        description="Summary in one word, for people. Programs should read conditions.",
    )
    reason: str = Field(
        default="",
        max_length=128,
        description="Why the object is in its phase, as one CamelCase word; docs/reasons.md explains each.",
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Ready, Reconciling and Stalled, and the conditions that they follow from.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )


def condition(
    type_: ConditionType, status: bool | None, reason: Reason, message: str, *, generation: int
) -> Condition:
    """Return a condition without a transition time, which ``merge_conditions`` adds; None as status is Unknown."""
    text = "Unknown" if status is None else ("True" if status else "False")
    return Condition(
        type=type_, status=text, reason=reason, message=message[:4096], observed_generation=generation
    )


def merge_conditions(
    old: Iterable[Condition], new: Sequence[Condition], *, now: datetime
) -> tuple[Condition, ...]:
    """Return ``new``, each with the transition time that it has in ``old``, or ``now`` if its status has changed."""
    before = {item.type: item for item in old}
    merged = []
    for item in new:
        previous = before.get(item.type)
        same = previous is not None and previous.status == item.status
        stamp = previous.last_transition_time if same and previous is not None else now.replace(microsecond=0)
        merged.append(item.model_copy(update={"last_transition_time": stamp}))
    return tuple(merged)


def find_condition(conditions: Iterable[Condition], type_: ConditionType) -> Condition | None:
    """Return the condition of a type, or None if there is none."""
    return next((item for item in conditions if item.type == type_), None)
