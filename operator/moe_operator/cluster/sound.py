"""Makes an object safe to read as it enters the cache: a field of the wrong type is left out, as if it were not set.

What the API server lets through depends on its version, on the CRDs that are installed, and on who may write statuses.
So whoever reads a manifest from the cache relies on the types below, and on nothing else: a field that is listed has
its type or is absent, and only what ``identity`` asks for is always there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from moe_formats.resources import labels
from moe_operator.cluster.confine import warn_once
from moe_operator.state import Manifest

#: Years that a time may lie in. Any date in them can have days added or taken away.
YEARS = range(1970, 9000)


class Unreadable(ValueError):
    """An object cannot be told from others, since its kind, name, namespace, uid or resourceVersion is missing."""


@dataclass(frozen=True)
class ListOf:
    """A list. Items that are not of the shape, or that lack a field that is needed, are left out."""

    item: Any
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class MapOf:
    """A map whose values have a type. Other values are left out."""

    value: type


def is_time(value: object) -> bool:
    """Return whether a value is the text of a time with a time zone, in ``YEARS``."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return False
    return time is not None and time.tzinfo is not None and time.year in YEARS


#: A type, a function that returns whether a value is as it should be, a list, a map, or the shapes of named fields.
Shape = type | Callable[[object], bool] | ListOf | MapOf | Mapping[str, Any]

_METADATA: Shape = {
    "generation": int,
    "creationTimestamp": is_time,
    "deletionTimestamp": str,
    "deletionGracePeriodSeconds": int,
    "labels": MapOf(str),
    "annotations": MapOf(str),
    "finalizers": ListOf(str),
    "ownerReferences": ListOf(
        {"apiVersion": str, "kind": str, "name": str, "uid": str, "controller": bool},
        needs=("apiVersion", "kind", "name", "uid"),
    ),
}
_CONDITIONS = ListOf(
    {"type": str, "status": str, "reason": str, "message": str, "lastTransitionTime": is_time},
    needs=("type", "status"),
)
_STATE: Shape = {
    "terminated": {"exitCode": int, "reason": str, "message": str},
    "waiting": {"reason": str, "message": str},
}
_CONTAINERS = ListOf({"name": str, "state": _STATE, "lastState": _STATE})
_POD: Shape = {
    "spec": {"hostNetwork": bool},
    "status": {
        "phase": str,
        "reason": str,
        "message": str,
        "podIP": str,
        "conditions": _CONDITIONS,
        "initContainerStatuses": _CONTAINERS,
        "containerStatuses": _CONTAINERS,
    },
}
_JOB: Shape = {
    "spec": {
        "suspend": bool,
        "parallelism": int,
        "completions": int,
        "completionMode": str,
        "template": {"spec": {"activeDeadlineSeconds": int}},
    },
    "status": {
        "conditions": _CONDITIONS,
        "startTime": is_time,
        "succeeded": int,
        "failed": int,
        "completedIndexes": str,
        "uncountedTerminatedPods": {"succeeded": ListOf(str), "failed": ListOf(str)},
    },
}
#: Of the spec of a custom resource, nothing is left out that would still be valid without it: its model refuses it instead.
_CUSTOM: Shape = {
    "spec": {"pool": str, "expert": str},
    "status": {
        "phase": str,
        "conditions": _CONDITIONS,
        "analysis": {"trend": str},
        "lifecycle": {"acts": ListOf({"act": str, "heldBackTotal": int})},
    },
}
#: What is read of each kind, besides its metadata. ``reduced.py`` keeps nothing else of some kinds.
SHAPES: dict[str, Shape] = {
    "Pod": _POD,
    "Job": _JOB,
    "Deployment": {"spec": {"replicas": int}, "status": {"readyReplicas": int, "conditions": _CONDITIONS}},
    "ConfigMap": {"data": MapOf(str)},
    "Workload": {"spec": {"active": bool}, "status": {"conditions": _CONDITIONS}},
    "Service": {"spec": {}},
    "PersistentVolumeClaim": {"spec": {}, "status": {"phase": str}},
}


def sound(manifest: Manifest) -> Manifest:
    """Return the object, without what has the wrong type; the same object if nothing has. Raises Unreadable.

    What is left out is logged once, with the object's name.
    """
    kind = identity(manifest)
    shape = _CUSTOM if manifest.get("apiVersion") == labels.API_VERSION else SHAPES.get(kind, {})
    wrong: list[str] = []
    result: Manifest = _checked(manifest, {"metadata": _METADATA, **shape}, "", wrong)  # type: ignore[dict-item]
    if wrong:
        warn_once(manifest, f"{', '.join(wrong)}: not of the type that is expected, and read as if not set")
    return result


def identity(manifest: Manifest) -> str:
    """Return the kind of an object that has all that tells it from others. Raises Unreadable."""
    metadata = manifest.get("metadata")
    if not isinstance(metadata, Mapping):
        raise Unreadable("metadata is missing")
    kind, version = manifest.get("kind"), metadata.get("resourceVersion")
    for field, value in {
        "kind": kind,
        **{f"metadata.{name}": metadata.get(name) for name in ("name", "namespace", "uid")},
    }.items():
        if not isinstance(value, str) or not value:
            raise Unreadable(f"{field} is missing")
    if not isinstance(version, str) or not (version.isascii() and version.isdecimal()):
        raise Unreadable("metadata.resourceVersion is not a number")
    return str(kind)


_WRONG = object()


def _checked(value: Any, shape: Any, path: str, wrong: list[str]) -> Any:
    """Return a value without its wrong parts, or ``_WRONG`` if it is wrong itself; note each wrong part in ``wrong``."""
    if isinstance(shape, Mapping):
        return _checked_fields(value, shape, path, wrong) if isinstance(value, Mapping) else _WRONG
    if isinstance(shape, ListOf):
        return _checked_list(value, shape, path, wrong) if isinstance(value, list | tuple) else _WRONG
    if isinstance(shape, MapOf):
        return _checked_map(value, shape, path, wrong) if isinstance(value, Mapping) else _WRONG
    if isinstance(shape, type):
        return value if isinstance(value, shape) and isinstance(value, bool) == (shape is bool) else _WRONG
    return value if shape(value) else _WRONG


def _checked_fields(value: Mapping[str, Any], shape: Mapping[str, Any], path: str, wrong: list[str]) -> Any:
    changed: dict[str, Any] = {}
    for name, inner in shape.items():
        if name not in value:
            continue
        here = f"{path}.{name}" if path else name
        old = value[name]
        new = _WRONG if old is None else _checked(old, inner, here, wrong)
        if new is _WRONG and old is not None:
            wrong.append(here)
        if new is not old:
            changed[name] = new
    if not changed:
        return value
    return {name: item for name, item in {**value, **changed}.items() if item is not _WRONG}


def _checked_list(value: Any, shape: ListOf, path: str, wrong: list[str]) -> Any:
    items = [_checked(item, shape.item, f"{path}[]", wrong) for item in value]
    kept = [
        item
        for item in items
        if item is not _WRONG and all(name in item for name in shape.needs)  # `needs` is for maps only
    ]
    if len(kept) < len(items):
        wrong.append(f"{path}[]")
    unchanged = len(kept) == len(value) and all(new is old for new, old in zip(kept, value, strict=True))
    return value if unchanged else kept


def _checked_map(value: Mapping[str, Any], shape: MapOf, path: str, wrong: list[str]) -> Any:
    kept = {name: item for name, item in value.items() if isinstance(item, shape.value)}
    if len(kept) < len(value):
        wrong.append(f"{path}.*")
    return value if len(kept) == len(value) else kept
