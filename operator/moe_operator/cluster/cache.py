"""All objects that the operator reads, as it last saw or wrote them.

The cache is filled by our own lists. Watch events and the answer to every write keep it up to date, so no decision rests
on a view that is older than our own last write. In whatever order news arrives, an object is replaced only by a newer
resourceVersion, and an object that was deleted does not come back with its old uid. An object that is malformed is made
safe to read as it enters (see ``sound.py``), and reduced to what is read of it (see ``reduced.py``). A listener that fails
about one object is told of the next one all the same.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from math import inf
from typing import NamedTuple, TypeVar

from moe_formats.resources import labels
from moe_formats.resources.base import CustomResource
from moe_operator.cluster.confine import confined
from moe_operator.cluster.reduced import reduced
from moe_operator.cluster.resources import controller_uid
from moe_operator.cluster.sound import sound
from moe_operator.state import Manifest

#: Called with an object before and after a change; None if it did not exist before or does not exist afterwards.
Listener = Callable[[Manifest | None, Manifest | None], None]
Key = tuple[str, str, str]
Model = TypeVar("Model", bound=CustomResource)

#: Number of deleted uids that are remembered, so that late news does not bring their objects back.
REMEMBERED = 10_000
#: Number of objects that are held as models too: of those that were looked at last. A model takes more memory than its object.
MODELS = 1_000
#: Kinds whose deleted objects are remembered, since pods may outlive them.
OUTLIVED = frozenset({"Expert", "Job"})


class Former(NamedTuple):
    """An object that was deleted."""

    uid: str
    name: str


class Cache:
    """Finds objects by kind, namespace and name, by the pool that they name, and by their controlling owner."""

    def __init__(self) -> None:
        self._objects: dict[Key, Manifest] = {}
        self._index: defaultdict[tuple[str, ...], dict[Key, None]] = defaultdict(dict)
        self._gone: OrderedDict[str, float] = OrderedDict()
        self._former: defaultdict[tuple[str, ...], dict[str, Former]] = defaultdict(dict)
        self._former_entries: dict[str, tuple[tuple[str, ...], ...]] = {}
        self._models: OrderedDict[Key, tuple[str, CustomResource | Exception]] = OrderedDict()
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` after every change."""
        self._listeners.append(listener)

    def put(self, manifest: Manifest) -> bool:
        """Take an object as it was read or written, and return whether this is news. Raises Unreadable."""
        new = reduced(sound(manifest))
        key, version, uid = _key(new), _version(new), new["metadata"]["uid"]
        old = self._objects.get(key)
        if version <= self._gone.get(uid, 0) or (old is not None and version <= _version(old)):
            return False
        self._unindex(key)
        self._forget_former(uid)
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
                self._forget_former(self._gone.popitem(last=False)[0])
        key = (kind, namespace, name)
        old = self._objects.get(key)
        if old is None or (uid and old["metadata"]["uid"] != uid):
            return False
        self._unindex(key)
        del self._objects[key]
        self._models.pop(key, None)
        if uid and kind in OUTLIVED:
            self.remember(Former(uid, name), *_entries(old))
        self._notify(old, None)
        return True

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """Return an object, or None if it is not there."""
        return self._objects.get((kind, namespace, name))

    def all(self, kind: str) -> Iterator[Manifest]:
        """Yield every object of a kind."""
        return (self._objects[key] for key in list(self._index.get((kind,), ())))

    def of_pool(self, kind: str, namespace: str, pool: str) -> list[Manifest]:
        """Return the objects of a kind that name a pool: Experts and revisions in their spec, others by a label.

        Anybody can set a label, so nothing but an Expert or a revision belongs to a pool by this alone (see kinship.py).
        """
        keys = sorted(self._index.get((kind, namespace, labels.POOL, pool), ()))
        return [self._objects[key] for key in keys]

    def of_controller(self, kind: str, namespace: str, uid: str) -> list[Manifest]:
        """Return the objects of a kind whose controlling owner has a uid.

        Only those in the owner's namespace: an owner elsewhere is none, though anybody may name its uid.
        """
        return [self._objects[key] for key in self._index.get((kind, namespace, uid), ())]

    def former_of_pool(self, kind: str, namespace: str, pool: str) -> list[Former]:
        """Return the deleted objects of a kind (see ``OUTLIVED``) that belonged to a pool."""
        return list(self._former.get((kind, namespace, labels.POOL, pool), {}).values())

    def former_of_controller(self, kind: str, namespace: str, uid: str) -> list[Former]:
        """Return the deleted objects of a kind (see ``OUTLIVED``) whose controlling owner has a uid."""
        return list(self._former.get((kind, namespace, uid), {}).values())

    def remember(self, former: Former, *entries: tuple[str, ...]) -> None:
        """Let a deleted object be found by index entries, until ``REMEMBERED`` others have been deleted after it."""
        self._gone.setdefault(former.uid, 0)
        self._former_entries[former.uid] = entries
        for entry in entries:
            self._former[entry][former.uid] = former

    def model(self, manifest: Manifest, type_: type[Model]) -> Model:
        """Return an object as a model. Raises pydantic.ValidationError.

        It is parsed once per resourceVersion, as long as fewer than ``MODELS`` others are asked for meanwhile.
        """
        key = _key(manifest)
        version = manifest["metadata"]["resourceVersion"]
        cached = self._models.get(key)
        if cached is None or cached[0] != version:
            try:
                cached = (version, type_.model_validate(manifest))
            except ValueError as error:
                cached = (version, error)
            self._models[key] = cached
        self._models.move_to_end(key)
        while len(self._models) > MODELS:
            self._models.popitem(last=False)
        if isinstance(cached[1], Exception):
            raise cached[1]
        assert isinstance(cached[1], type_)
        return cached[1]

    def _unindex(self, key: Key) -> None:
        old = self._objects.get(key)
        for entry in _entries(old) if old is not None else ():
            self._index[entry].pop(key, None)
            if not self._index[entry]:
                del self._index[entry]

    def _forget_former(self, uid: str) -> None:
        for entry in self._former_entries.pop(uid, ()):
            self._former[entry].pop(uid, None)
            if not self._former[entry]:
                del self._former[entry]

    def _notify(self, old: Manifest | None, new: Manifest | None) -> None:
        for listener in self._listeners:
            with confined(new if new is not None else old, "acting on a change of it"):
                listener(old, new)


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
    if pool := labels.belongings(manifest).pool:
        yield (kind, namespace, labels.POOL, pool)
    if uid := controller_uid(manifest):
        yield (kind, namespace, uid)
