"""The API server in memory: objects with the rules that the operator relies on.

Nobody changes a stored object in place: every write stores a new one, so a fork need not copy objects.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

from moe_formats.resources import labels
from moe_operator.cluster.api_client import ApiError
from moe_operator.cluster.resources import WATCHED
from moe_operator.state import Manifest

#: Kind, namespace and name.
Key = tuple[str, str, str]
#: Told of an object after each change; ``gone`` says that it was deleted.
Watch = Callable[[Manifest, bool], None]

_OWNED = {resource.kind for resource in WATCHED if resource.owned}


class ApiServer:
    """Objects by kind, namespace and name. Reads and writes raise ApiError as the operator's client would."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.objects: dict[Key, Manifest] = {}
        self.version = 100
        self._clock = clock
        #: What the operator has set: by create and by apply. An apply removes only what an earlier apply has set.
        self._created: dict[Key, Manifest] = {}
        self._applied: dict[Key, Manifest] = {}
        #: When claims are bound; "Never": nothing can make their volumes.
        self.storage: Literal["Immediate", "WaitForFirstConsumer", "Never"] = "Immediate"
        #: Whether the quota of the namespace refuses new pods.
        self.quota_used_up = False
        self._watch: Watch = _unheard

    def fork(self, clock: Callable[[], datetime]) -> "ApiServer":
        """Return a server that goes its own way from here; nobody watches it yet."""
        other = ApiServer(clock)
        other.objects, other.version = dict(self.objects), self.version
        other.storage, other.quota_used_up = self.storage, self.quota_used_up
        other._created, other._applied = dict(self._created), dict(self._applied)
        return other

    def watch(self, watch: Watch) -> None:
        """Tell ``watch`` of every change of what the operator may see; it takes the place of the one before."""
        self._watch = watch

    def visible(self, kind: str) -> list[Manifest]:
        """Return the objects of a kind that the operator lists: of some kinds only those that bear its label."""
        return [item for (found, _, _), item in self.objects.items() if found == kind and _is_visible(item)]

    def get(self, kind: str, namespace: str, name: str) -> Manifest:
        """Return an object; raises ApiError (404) if there is none."""
        try:
            return self.objects[kind, namespace, name]
        except KeyError:
            raise ApiError(404, "NotFound", f"{kind} {name}") from None

    def add(self, manifest: Manifest) -> Manifest:
        """Store an object as it is, with the metadata that it lacks."""
        return self._store(_key(manifest), manifest)

    def create(self, manifest: Manifest) -> Manifest:
        """Store a new object of the operator; raises ApiError (409 AlreadyExists) if its name is taken."""
        key = _key(manifest)
        if key in self.objects:
            raise ApiError(409, "AlreadyExists", f"{manifest['kind']} {manifest['metadata']['name']} exists")
        self._created[key] = manifest
        entry = {"manager": labels.FIELD_MANAGER, "operation": "Update", "fieldsV1": {}}
        return self.add({**manifest, "metadata": {**manifest["metadata"], "managedFields": [entry]}})

    def replace(self, manifest: Manifest) -> Manifest:
        """Replace an object at the resourceVersion that it names; raises ApiError (409 Conflict) if it has changed."""
        key = _key(manifest)
        _check_version(self.get(*key), manifest["metadata"]["resourceVersion"])
        return self._store(key, manifest)

    def apply(self, manifest: Manifest) -> Manifest:
        """Apply by the one field manager: what it applied before and leaves out now goes, all else stays.

        What it has also set by create stays too. Raises ApiError (422, or 409 if there is none) for another uid.
        """
        key = _key(manifest)
        live, uid = self.objects.get(key), manifest["metadata"].get("uid")
        if live is None and uid:
            raise ApiError(409, "Conflict", f"uid mismatch: {uid}, and no existing object was found")
        _check_immutable_uid(live or {}, uid)
        gone = without(self._applied.get(key, {}), self._created.get(key, {}), but={})
        stored = merged(without(live or {}, gone, but=manifest), manifest)
        self._applied[key] = manifest
        return self._store(key, stored)

    def merge(self, key: Key, change: Manifest, *, subresource: str = "") -> Manifest:
        """Merge a change; what it sets is no longer the applier's.

        Raises ApiError for another uid: 422 for the object itself, 409 for a subresource.
        """
        live, uid = self.get(*key), change.get("metadata", {}).get("uid")
        if subresource:
            _check_uid(live, uid)
        _check_immutable_uid(live, uid)
        for fields in (self._applied, self._created):
            if key in fields:
                fields[key] = without(fields[key], change, but={})
        return self._store(key, merged(live, change))

    def replace_managed_fields(self, key: Key, entries: list[dict[str, Any]], version: str) -> Manifest:
        """Replace managedFields: with no entry of a create left, what it set counts as applied. Raises ApiError (409)."""
        live = self.get(*key)
        _check_version(live, version)
        if all(entry["operation"] == "Apply" for entry in entries):
            self._applied[key] = merged(self._applied.get(key, {}), self._created.pop(key, {}))
        return self._store(key, merged(live, {"metadata": {"managedFields": entries}}))

    def write_status(self, key: Key, status: Manifest, version: str | None = None) -> Manifest:
        """Replace a status; raises ApiError (409 Conflict) unless the object is at ``version``, where one is named."""
        live = self.get(*key)
        if version is not None:
            _check_version(live, version)
        return self._store(key, {**live, "status": status})

    def delete(self, key: Key, uid: str | None = None, version: str | None = None) -> None:
        """Delete an object, only with that uid and at that version if they are named.

        What it owned is left to the garbage collector. Raises ApiError (409 Conflict).
        """
        live = self.get(*key)
        _check_uid(live, uid)
        if version is not None:
            _check_version(live, version)
        del self.objects[key]
        for fields in (self._applied, self._created):
            fields.pop(key, None)
        self.version += 1
        last = {**live, "metadata": {**live["metadata"], "resourceVersion": str(self.version)}}
        if _is_visible(last):
            self._watch(last, True)

    def _store(self, key: Key, manifest: Manifest) -> Manifest:
        self.version += 1
        live = self.objects.get(key)
        metadata = {**manifest["metadata"], "resourceVersion": str(self.version)}
        if live is None:
            metadata.setdefault("uid", f"uid-{self.version}")
            metadata.setdefault("creationTimestamp", self._clock().strftime("%Y-%m-%dT%H:%M:%SZ"))
            metadata.setdefault("generation", 1)
        else:
            changed = live.get("spec") != manifest.get("spec")
            metadata |= {name: live["metadata"][name] for name in ("uid", "creationTimestamp")}
            metadata["generation"] = live["metadata"]["generation"] + changed
        stored = {**manifest, "metadata": metadata, **_defaults(manifest)}
        self.objects[key] = stored
        if _is_visible(stored):
            self._watch(stored, False)
        elif live is not None and _is_visible(live):
            self._watch(stored, True)
        return stored


def merged(live: Manifest, change: Manifest) -> dict[str, Any]:
    """Return ``live`` with a JSON merge patch: maps are merged, null takes away, all else replaces."""
    result = dict(live)
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            old = result.get(name)
            both = isinstance(value, Mapping) and isinstance(old, Mapping)
            result[name] = merged(old, value) if both else value
    return result


def without(live: Manifest, fields: Manifest, *, but: Manifest) -> dict[str, Any]:
    """Return ``live`` less the fields that ``fields`` has and ``but`` has not."""
    result = dict(live)
    for name, value in fields.items():
        if isinstance(value, Mapping) and isinstance(result.get(name), Mapping):
            kept = but.get(name)
            result[name] = without(result[name], value, but=kept if isinstance(kept, Mapping) else {})
        elif name not in but:
            result.pop(name, None)
    return result


def _key(manifest: Manifest) -> Key:
    return manifest["kind"], manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]


def _defaults(manifest: Manifest) -> dict[str, Any]:
    """Return what the API server fills in: a Deployment that says nothing of replicas has one."""
    spec = manifest.get("spec") or {}
    return {} if manifest["kind"] != "Deployment" or "replicas" in spec else {"spec": {**spec, "replicas": 1}}


def _is_visible(manifest: Manifest) -> bool:
    if manifest["kind"] not in _OWNED:
        return True
    return (manifest["metadata"].get("labels") or {}).get(labels.MANAGED_BY) == labels.FIELD_MANAGER


def _check_version(live: Manifest, version: str) -> None:
    if live["metadata"]["resourceVersion"] != version:
        raise ApiError(409, "Conflict", "the object has been modified")


def _check_immutable_uid(live: Manifest, uid: str | None) -> None:
    """Refuse a patch that names the uid of another object: to the API server it would change a field that never changes."""
    if live and uid and uid != live["metadata"]["uid"]:
        raise ApiError(422, "Invalid", f"metadata.uid: Invalid value: {uid!r}: field is immutable")


def _check_uid(live: Manifest, uid: str | None) -> None:
    if uid is not None and uid != live["metadata"]["uid"]:
        raise ApiError(409, "Conflict", "the object of that name has another uid")


def _unheard(manifest: Manifest, gone: bool) -> None:
    """Where nobody watches."""
