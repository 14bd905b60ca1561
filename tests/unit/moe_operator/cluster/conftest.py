"""Objects to test with, and the API server in memory that they lie on."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from world.api_server import ApiServer, Key
from world.client import Client

from moe_formats.resources import labels
from moe_operator.cluster.cache import Cache
from moe_operator.state import Manifest


def make_object(kind: str, name: str, **parts: Any) -> dict[str, Any]:
    """Return an object of namespace `ns`; `uid`, `version`, `owner`, `pool`, `expert`, `role` go to metadata."""
    api_versions = {"Job": "batch/v1", "Deployment": "apps/v1"}
    api_version = api_versions.get(kind, labels.API_VERSION if kind.startswith("Expert") else "v1")
    marks = {labels.POOL: parts.pop("pool", None), labels.EXPERT: parts.pop("expert", None)}
    marks |= {labels.ROLE: parts.pop("role", None), labels.REVISION: parts.pop("revision", None)}
    marks[labels.MANAGED_BY] = labels.FIELD_MANAGER
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


class RecordedApi(Client):
    """The API server of `world`, with every write recorded; `fail_next` makes the next request fail."""

    def __init__(self) -> None:
        super().__init__(ApiServer(lambda: datetime(2026, 1, 1, tzinfo=UTC)))
        self.writes: list[tuple[str, str, str]] = []
        self.fail_next: Exception | None = None

    @property
    def objects(self) -> dict[Key, Manifest]:
        """What the API server holds, by kind, namespace and name."""
        return self.server.objects

    def add(self, manifest: Manifest) -> dict[str, Any]:
        """Store an object as somebody else would."""
        return dict(self.server.add(manifest))

    def before_read(self) -> None:
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error

    def before_write(self, verb: str, key: Key) -> None:
        kind, _, name = key
        self.writes.append((verb, kind, name))
        self.before_read()


@pytest.fixture
def api() -> RecordedApi:
    return RecordedApi()


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
