"""All objects that the operator reads, as it last saw or wrote them.

The cache is filled by our own lists. Watch events and the answer to every write keep it up to date, so no decision rests
on a view that is older than our own last write. In whatever order news arrives, an object is replaced only by a newer
resourceVersion, and an object that was deleted does not come back with its old uid.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, TypeVar

from moe_formats.resources import labels
from moe_formats.resources.base import CustomResource
from moe_operator.state import Manifest

#: Called with an object before and after a change; None if it did not exist before or does not exist afterwards.
Listener = Callable[[Manifest | None, Manifest | None], None]
Key = tuple[str, str, str]
Model = TypeVar("Model", bound=CustomResource)

#: Number of deleted uids that are remembered, so that late news does not bring their objects back.
REMEMBERED = 10_000
#: Labels by which objects can be found.
INDEXED = (labels.POOL, labels.EXPERT)
#: Annotations that are large and that nothing here reads.
DROPPED_ANNOTATIONS = ("kubectl.kubernetes.io/last-applied-configuration",)


class Cache:
    """Finds objects by kind, namespace and name, and also by pool, by Expert and by controlling owner."""

    def __init__(self) -> None:
        self._objects: dict[Key, Manifest] = {}
        self._index: defaultdict[tuple[str, ...], dict[Key, None]] = defaultdict(dict)
        self._gone: OrderedDict[str, float] = OrderedDict()
        self._models: dict[Key, tuple[str, CustomResource | Exception]] = {}
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` after every change."""
        self._listeners.append(listener)

    def put(self, manifest: Manifest) -> bool:
        """Take an object as it was read or written, and return whether this is news."""
        key = _key(manifest)
        metadata = manifest["metadata"]
        old = self._objects.get(key)
        version = _version(manifest)
        if version <= self._gone.get(metadata["uid"], 0) or (old is not None and version <= _version(old)):
            return False
        new = prune(manifest)
        self._unindex(key)
        self._objects[key] = new
        for entry in _entries(new):
            self._index[entry][key] = None
        self._notify(old, new)
        return True

    def remove(self, kind: str, namespace: str, name: str, uid: str, version: float = inf) -> bool:
        """Remove an object that was deleted at a resourceVersion, and return whether it was there.

        Another object with the same name stays.
        """
        if uid:
            self._gone[uid] = version
            while len(self._gone) > REMEMBERED:
                self._gone.popitem(last=False)
        key = (kind, namespace, name)
        old = self._objects.get(key)
        if old is None or (uid and old["metadata"]["uid"] != uid):
            return False
        self._unindex(key)
        del self._objects[key]
        self._models.pop(key, None)
        self._notify(old, None)
        return True

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """Return an object, or None if it is not there."""
        return self._objects.get((kind, namespace, name))

    def all(self, kind: str) -> Iterator[Manifest]:
        """Yield every object of a kind."""
        return (self._objects[key] for key in list(self._index.get((kind,), ())))

    def of_pool(self, kind: str, namespace: str, pool: str) -> list[Manifest]:
        """Return the objects of a kind that belong to a pool, including its Experts and revisions."""
        return self._indexed(kind, namespace, labels.POOL, pool)

    def of_expert(self, kind: str, namespace: str, expert: str) -> list[Manifest]:
        """Return the objects of a kind that belong to an Expert by its name.

        They may belong to an earlier Expert of that name: callers to whom this matters compare owners.
        """
        return self._indexed(kind, namespace, labels.EXPERT, expert)

    def of_controller(self, kind: str, uid: str) -> list[Manifest]:
        """Return the objects of a kind whose controlling owner has a uid."""
        return [self._objects[key] for key in self._index.get((kind, uid), ())]

    def model(self, manifest: Manifest, type_: type[Model]) -> Model:
        """Return an object as a model; it is parsed once per resourceVersion. Raises pydantic.ValidationError."""
        key = _key(manifest)
        version = manifest["metadata"]["resourceVersion"]
        cached = self._models.get(key)
        if cached is None or cached[0] != version:
            try:
                cached = (version, type_.model_validate(manifest))
            except ValueError as error:
                cached = (version, error)
            self._models[key] = cached
        if isinstance(cached[1], Exception):
            raise cached[1]
        assert isinstance(cached[1], type_)
        return cached[1]

    def _indexed(self, kind: str, namespace: str, label: str, value: str) -> list[Manifest]:
        keys = sorted(self._index.get((kind, namespace, label, value), ()))
        return [self._objects[key] for key in keys]

    def _unindex(self, key: Key) -> None:
        old = self._objects.get(key)
        for entry in _entries(old) if old is not None else ():
            self._index[entry].pop(key, None)
            if not self._index[entry]:
                del self._index[entry]

    def _notify(self, old: Manifest | None, new: Manifest | None) -> None:
        for listener in self._listeners:
            listener(old, new)


def prune(manifest: Manifest) -> Manifest:
    """Return an object without the parts that are large and never read."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "managedFields"}
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {k: v for k, v in annotations.items() if k not in DROPPED_ANNOTATIONS}
    pruned: dict[str, Any] = {**manifest, "metadata": metadata}
    if manifest["kind"] == "Pod":
        pruned.pop("spec", None)
    return pruned


def _key(manifest: Manifest) -> Key:
    metadata = manifest["metadata"]
    return (manifest["kind"], metadata.get("namespace", ""), metadata["name"])


def _version(manifest: Manifest) -> int:
    return int(manifest["metadata"]["resourceVersion"])


def _entries(manifest: Manifest) -> Iterator[tuple[str, ...]]:
    """Yield the index entries of an object."""
    metadata = manifest["metadata"]
    kind, namespace = manifest["kind"], metadata.get("namespace", "")
    yield (kind,)
    for label, name in zip(INDEXED, labels.belongings(manifest), strict=True):
        if name:
            yield (kind, namespace, label, name)
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("controller"):
            yield (kind, owner["uid"])
