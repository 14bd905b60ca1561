"""ApiClient's methods on an API server in memory.

They are coroutines, as the operator expects, and never wait: ``finish`` runs one without an event loop.
"""

import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from moe_operator.cluster.api_client import ApiError, Keep, Listing, require_uid
from moe_operator.cluster.lease import LEASE_NAME
from moe_operator.cluster.permissions import PERMISSIONS, lease_permissions
from moe_operator.cluster.resources import Resource
from moe_operator.state import Manifest, ObjectRef
from world.api_server import ApiServer, Key

T = TypeVar("T")

GRANTED = frozenset(
    grant for item in (*PERMISSIONS, *lease_permissions(LEASE_NAME)) for grant in item.grants()
)


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError(f"{coroutine} waits for something")


class Client:
    """What an Applier, a Lister or a Lease sends its requests by."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        #: What RBAC was asked for: pairs of a resource and a verb.
        self.asked: set[tuple[str, str]] = set()

    def _ask(self, resource: Resource, *verbs: str, subresource: str = "") -> None:
        """Note what a request needs by RBAC, and refuse it as the API server would if no role of the chart grants it."""
        plural = f"{resource.plural}/{subresource}" if subresource else resource.plural
        needed = {(plural, verb) for verb in verbs}
        self.asked |= needed
        if not needed <= GRANTED:
            raise ApiError(403, "Forbidden", f"no role of the chart grants {sorted(needed - GRANTED)}")

    def before_read(self) -> None:
        """Called before every read; what it raises is what the reader gets."""

    def before_write(self, verb: str, key: Key) -> None:
        """Called before every write; what it raises keeps the write from being made."""

    def after_write(self, verb: str, key: Key) -> None:
        """Called after every write, before the writer hears of it."""

    async def list(
        self, resource: Resource, namespace: str = "", *, metadata_only: bool = False, keep: Keep = dict
    ) -> Listing:
        self._ask(resource, "list")
        self.before_read()
        found = self.server.visible(resource.kind)
        items = [{"metadata": item["metadata"]} if metadata_only else dict(item) for item in found]
        return Listing([keep(item) for item in items], self.server.version)

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        self._ask(resource, "get")
        self.before_read()
        return dict(self.server.get(resource.kind, namespace, name))

    async def create(self, resource: Resource, manifest: Manifest) -> dict[str, Any]:
        self._ask(resource, "create")
        return self._write("create", _key(resource, manifest), self.server.create, manifest)

    async def replace(self, resource: Resource, manifest: Manifest) -> dict[str, Any]:
        self._ask(resource, "update")
        return self._write("replace", _key(resource, manifest), self.server.replace, manifest)

    async def apply(self, resource: Resource, manifest: Manifest) -> dict[str, Any]:
        self._ask(resource, "patch")
        require_uid(manifest)
        return self._write("apply", _key(resource, manifest), self.server.apply, manifest)

    async def merge(
        self, resource: Resource, ref: ObjectRef, change: Manifest, *, subresource: str = ""
    ) -> dict[str, Any]:
        self._ask(resource, "patch", subresource=subresource)
        require_uid(change)
        key = (resource.kind, ref.namespace, ref.name)
        verb = f"merge/{subresource}" if subresource else "merge"
        return self._write(
            verb, key, lambda sent: self.server.merge(key, sent, subresource=subresource), change
        )

    async def replace_managed_fields(
        self, resource: Resource, ref: ObjectRef, fields: Sequence[Manifest], resource_version: str
    ) -> dict[str, Any]:
        self._ask(resource, "patch")
        key = (resource.kind, ref.namespace, ref.name)
        return self._write(
            "fields",
            key,
            lambda sent: self.server.replace_managed_fields(key, sent["fields"], resource_version),
            {"fields": [*fields]},
        )

    async def replace_status(
        self, resource: Resource, ref: ObjectRef, status: Manifest, resource_version: str
    ) -> dict[str, Any]:
        self._ask(resource, "patch", subresource="status")
        key = (resource.kind, ref.namespace, ref.name)
        return self._write(
            "status", key, lambda sent: self.server.write_status(key, sent, resource_version), status
        )

    async def delete(self, resource: Resource, ref: ObjectRef, resource_version: str) -> dict[str, Any]:
        self._ask(resource, "delete")
        key = (resource.kind, ref.namespace, ref.name)
        only = {"uid": ref.uid, "version": resource_version}
        return self._write("delete", key, lambda sent: self._deleted(key, sent), only)

    def _deleted(self, key: Key, only: Manifest) -> Manifest:
        self.server.delete(key, only["uid"], only["version"])
        return {"kind": "Status", "status": "Success"}

    def _write(
        self, verb: str, key: Key, write: Callable[[Manifest], Manifest], body: Manifest
    ) -> dict[str, Any]:
        self.before_write(verb, key)
        answer = write(json.loads(json.dumps(body)))  # What arrives is JSON, and nobody else's.
        self.after_write(verb, key)
        return dict(answer)


def _key(resource: Resource, manifest: Manifest) -> Key:
    return resource.kind, manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]
