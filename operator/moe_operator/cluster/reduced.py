"""Reduces an object to what the operator reads of it, as it enters the cache. With thousands of Experts, memory is what counts.

Of pods, Jobs and ReplicaSets only the fields are kept that ``sound.py`` lists, and of ReplicaSets only the metadata: whatever
decides about them relies on nothing else. Other kinds are compared with what is desired, or parsed, as a whole. Equal texts
are held once, since most texts of an object are the same as those of thousands of others.
"""

from collections.abc import Mapping, Sequence
from sys import intern
from typing import Any

from moe_operator.cluster.sound import SHAPES, ListOf
from moe_operator.state import Manifest

#: Parts of every object's metadata that nothing here reads from the cache.
_DROPPED = frozenset({"managedFields", "selfLink", "generateName"})
#: Annotations that are large and that nothing here reads.
_DROPPED_ANNOTATIONS = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})
#: Kinds of which only those fields are kept that ``sound.py`` lists, besides their metadata.
_ONLY_LISTED = frozenset({"Pod", "Job", "ReplicaSet", "Workload"})
#: Longest text that is looked up among those that are held. A longer one seldom occurs twice.
_LONGEST_SHARED = 256


def reduced(manifest: Manifest) -> dict[str, Any]:
    """Return a sound object without what is never read. The object itself is left alone."""
    kind = manifest["kind"]
    metadata = {name: value for name, value in manifest["metadata"].items() if name not in _DROPPED}
    if kind == "ReplicaSet":
        # The Deployment controller copies the annotations of the Deployment, with its whole pod template.
        metadata.pop("annotations", None)
    elif annotations := metadata.get("annotations"):
        metadata["annotations"] = {
            name: text for name, text in annotations.items() if name not in _DROPPED_ANNOTATIONS
        }
    # What was observed of traffic is read and written as a whole, and would take more than everything else.
    rest = {name: value for name, value in manifest.items() if name not in ("metadata", "binaryData")}
    if kind in _ONLY_LISTED:
        shape = {"apiVersion": str, "kind": str, **SHAPES.get(kind, {})}  # type: ignore[dict-item]
        rest = {name: value for name, value in _listed(rest, shape).items() if value != {}}
    shared: dict[str, Any] = _shared({**rest, "metadata": metadata})
    return shared


def _listed(value: Any, shape: Any) -> Any:
    """Return the part of a value that a shape lists."""
    if isinstance(shape, Mapping) and isinstance(value, Mapping):
        return {name: _listed(value[name], inner) for name, inner in shape.items() if name in value}
    if isinstance(shape, ListOf) and isinstance(value, Sequence) and not isinstance(value, str):
        return [_listed(item, shape.item) for item in value]
    return value


def _shared(value: Any) -> Any:
    """Return a copy of a JSON value in which equal texts are one and the same."""
    if isinstance(value, str):
        return intern(value) if type(value) is str and len(value) <= _LONGEST_SHARED else value
    if isinstance(value, Mapping):
        return {intern(name): _shared(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shared(item) for item in value]
    return value
