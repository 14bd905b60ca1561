"""Objects to test with, and an API server in memory that keeps to the rules the operator relies on."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from moe_formats.resources import labels
from moe_operator.cluster.api_client import ApiError, Listing
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.resources import Resource
from moe_operator.state import Manifest, ObjectRef


def make_object(kind: str, name: str, **parts: Any) -> dict[str, Any]:
    """Return an object of namespace `ns`; `uid`, `version`, `owner`, `pool`, `expert`, `role` go to metadata."""
    api_versions = {"Job": "batch/v1", "Deployment": "apps/v1"}
    api_version = api_versions.get(kind, labels.API_VERSION if kind.startswith("Expert") else "v1")
    marks = {labels.POOL: parts.pop("pool", None), labels.EXPERT: parts.pop("expert", None)}
    marks |= {labels.ROLE: parts.pop("role", None), labels.REVISION: parts.pop("revision", None)}
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "ns",
        "uid": parts.pop("uid", f"uid-{name}"),
        "resourceVersion": str(parts.pop("version", 1)),
        "generation": 1,
        "creationTimestamp": parts.pop("created", "2026-01-01T00:00:00Z"),
        "labels": {key: value for key, value in marks.items() if value is not None},
    }
    if owner := parts.pop("owner", None):
        metadata["ownerReferences"] = [{"kind": "Expert", "name": "x", "uid": owner, "controller": True}]
    if annotations := parts.pop("annotations", None):
        metadata["annotations"] = annotations
    if deleted := parts.pop("deleted", None):
        metadata["deletionTimestamp"] = deleted
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts}


def make_expert(name: str, pool: str = "p", **parts: Any) -> dict[str, Any]:
    """Return a valid Expert."""
    spec = {
        "pool": pool,
        "base": {"preset": "tiny"},
        "data": {"sources": [{"store": "corpora", "path": "x/*"}]},
        **parts.pop("spec", {}),
    }
    return make_object("Expert", name, spec=spec, **parts)


def make_pool(name: str = "p", **parts: Any) -> dict[str, Any]:
    """Return a valid pool."""
    return make_object("ExpertPool", name, spec={"storage": {"size": "1Gi"}} | parts.pop("spec", {}), **parts)


class MemoryApi:
    """Objects with resourceVersions; counts writes; `fail_next` makes the next request fail."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.version = 100
        self.writes: list[tuple[str, str, str]] = []
        self.fail_next: Exception | None = None

    def add(self, manifest: Manifest) -> dict[str, Any]:
        """Store an object as somebody else would."""
        self.version += 1
        stored: dict[str, Any] = copy.deepcopy(dict(manifest))
        stored["metadata"].setdefault("uid", f"uid-{stored['metadata']['name']}-{self.version}")
        stored["metadata"].setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        stored["metadata"]["resourceVersion"] = str(self.version)
        self.objects[self._key(stored["kind"], stored["metadata"]["name"])] = stored
        return copy.deepcopy(stored)

    async def list(self, resource: Resource, namespace: str = "", *, metadata_only: bool = False) -> Listing:
        self._maybe_fail()
        items = [copy.deepcopy(item) for (kind, _, _), item in self.objects.items() if kind == resource.kind]
        return Listing(
            [{k: v for k, v in item.items() if k == "metadata"} if metadata_only else item for item in items],
            self.version,
        )

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        self._maybe_fail()
        return copy.deepcopy(self._existing(resource.kind, name))

    async def create(self, resource: Resource, manifest: Manifest) -> dict[str, Any]:
        self._write("create", resource, manifest["metadata"]["name"])
        if self._key(resource.kind, manifest["metadata"]["name"]) in self.objects:
            raise ApiError(409, "AlreadyExists", "exists")
        return self.add(manifest)

    async def replace(self, resource: Resource, manifest: Manifest) -> dict[str, Any]:
        self._write("replace", resource, manifest["metadata"]["name"])
        live = self._existing(resource.kind, manifest["metadata"]["name"])
        self._check_version(live, manifest["metadata"]["resourceVersion"])
        return self.add(manifest)

    async def apply(self, resource: Resource, manifest: Manifest) -> dict[str, Any]:
        self._write("apply", resource, manifest["metadata"]["name"])
        live = self.objects.get(self._key(resource.kind, manifest["metadata"]["name"]), {})
        return self.add(_merged(live, manifest))

    async def merge(
        self, resource: Resource, ref: ObjectRef, change: Manifest, *, subresource: str = ""
    ) -> dict[str, Any]:
        self._write(f"merge/{subresource}" if subresource else "merge", resource, ref.name)
        live = self._existing(resource.kind, ref.name)
        uid = change.get("metadata", {}).get("uid")
        if uid and uid != live["metadata"]["uid"]:
            raise ApiError(409, "Conflict", "uid")
        return self.add(_merged(live, change))

    async def replace_status(
        self, resource: Resource, ref: ObjectRef, status: Manifest, resource_version: str
    ) -> dict[str, Any]:
        self._write("status", resource, ref.name)
        live = self._existing(resource.kind, ref.name)
        self._check_version(live, resource_version)
        return self.add({**live, "status": dict(status)})

    async def delete(self, resource: Resource, ref: ObjectRef) -> dict[str, Any]:
        self._write("delete", resource, ref.name)
        live = self._existing(resource.kind, ref.name)
        if ref.uid and live["metadata"]["uid"] != ref.uid:
            raise ApiError(409, "Conflict", "uid")
        del self.objects[self._key(resource.kind, ref.name)]
        return {"kind": "Status", "status": "Success"}

    def _key(self, kind: str, name: str) -> tuple[str, str, str]:
        return (kind, "ns", name)

    def _existing(self, kind: str, name: str) -> dict[str, Any]:
        try:
            return self.objects[self._key(kind, name)]
        except KeyError:
            raise ApiError(404, "NotFound", f"{kind} {name}") from None

    def _check_version(self, live: Manifest, version: str) -> None:
        if live["metadata"]["resourceVersion"] != version:
            raise ApiError(409, "Conflict", "the object has been modified")

    def _write(self, verb: str, resource: Resource, name: str) -> None:
        self.writes.append((verb, resource.kind, name))
        self._maybe_fail()

    def _maybe_fail(self) -> None:
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error


def _merged(live: Manifest, change: Manifest) -> dict[str, Any]:
    merged = dict(live)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return merged


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi()


@pytest.fixture
def cache() -> Cache:
    return Cache()


@pytest.fixture
def make() -> Callable[..., dict[str, Any]]:
    return make_object


@pytest.fixture
def expert() -> Callable[..., dict[str, Any]]:
    return make_expert


@pytest.fixture
def pool() -> Callable[..., dict[str, Any]]:
    return make_pool
