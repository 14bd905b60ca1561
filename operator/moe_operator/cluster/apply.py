"""Carries out a Plan, in an order in which the operator may be killed at any point without losing anything.

Objects that are created once (revisions, Jobs) come first, then objects that are kept as desired, then replicas and the
Jobs to start, then statuses, then deletions, and events last. Every answer of the API server enters the cache at once.
An object that is as desired costs no request, so a settled cluster sees no writes.
"""

from collections.abc import Coroutine
from typing import Any

from moe_formats.resources import labels
from moe_operator.cluster.api_client import ApiClient, ApiError
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.events import EventSender
from moe_operator.cluster.resources import controller_uid, ref_of, resource_of
from moe_operator.state import Manifest, ObjectRef, Plan, StatusWrite
from moe_operator.subset import is_subset


class Outdated(Exception):
    """An object has changed since the plan was made, so the plan has to be made again."""


class NameTaken(Exception):
    """The name of an object to create is taken by an object of another owner or with other inputs."""


class Applier:
    """Sends the requests that plans consist of."""

    def __init__(self, api: ApiClient, cache: Cache) -> None:
        """Send requests through ``api``, and put every answer into ``cache``."""
        self._api = api
        self._cache = cache
        self._events = EventSender(api)

    async def carry_out(self, plan: Plan, about: Manifest) -> None:
        """Carry out the plan about the object ``about``, which is also the object of its events.

        Raises Outdated if an object has changed meanwhile, NameTaken if a name is taken, ApiError if the API server
        refuses a request, and aiohttp.ClientError or TimeoutError if it does not answer.
        """
        for manifest in plan.create:
            await self._create(manifest)
        for manifest in plan.apply:
            await self._apply(manifest)
        for ref, replicas in plan.scale:
            await self._set(ref, "replicas", replicas, subresource="scale")
        for ref in plan.resume:
            await self._set(ref, "suspend", False)
        for write in plan.statuses:
            await self._write_status(write)
        for ref in plan.delete:
            await self._delete(ref)
        for event in plan.events:
            await self._events.send(event, about)

    async def _create(self, manifest: Manifest) -> None:
        resource, ref = resource_of(manifest["kind"]), ref_of(manifest)
        live = self._live(ref)
        if live is None:
            try:
                self._cache.put(await self._api.create(resource, manifest))
                return
            except ApiError as error:
                if not error.already_exists:
                    raise
            live = await self._api.get(resource, ref.namespace, ref.name)
            self._cache.put(live)
        _check_same(manifest, live)
        if not is_subset(manifest["metadata"]["labels"], live["metadata"].get("labels") or {}):
            change = {"metadata": {"labels": manifest["metadata"]["labels"]}}
            self._cache.put(await self._api.merge(resource, ref, change))

    async def _apply(self, manifest: Manifest) -> None:
        resource, ref = resource_of(manifest["kind"]), ref_of(manifest)
        live = self._live(ref)
        if live is not None:
            _check_owner(manifest, live)
            if is_subset(manifest, live):
                return
        answer = await self._api.apply(resource, manifest)
        if not is_subset(
            manifest, answer
        ):  # Somebody added to a list of ours: a merge replaces the whole list.
            answer = await self._api.merge(resource, ref, manifest)
        self._cache.put(answer)

    async def _set(self, ref: ObjectRef, field: str, value: Any, *, subresource: str = "") -> None:
        """Set one field of the spec, unless it has that value already. Raises Outdated if the object is gone or another."""
        live = self._live(ref)
        if live is None or (ref.uid and live["metadata"]["uid"] != ref.uid):
            raise Outdated(f"{ref.kind} {ref.name} no longer exists")
        if live["spec"].get(field) == value:
            return
        change = {"metadata": {"uid": live["metadata"]["uid"]}, "spec": {field: value}}
        request = self._api.merge(resource_of(ref.kind), ref, change, subresource=subresource)
        answer = await self._guarded(ref, request)
        if subresource:
            await self.refresh(ref)
        else:
            self._cache.put(answer)

    async def _write_status(self, write: StatusWrite) -> None:
        resource, ref = resource_of(write.target.kind), write.target
        answer = self._api.replace_status(resource, ref, write.status, write.resource_version)
        self._cache.put(await self._guarded(ref, answer))

    async def _delete(self, ref: ObjectRef) -> None:
        try:
            answer = await self._api.delete(resource_of(ref.kind), ref)
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
            answer = {}
        if answer.get("kind") == ref.kind:
            self._cache.put(answer)  # Somebody's finalizer still holds the object.
        elif ref.uid:
            self._cache.remove(ref.kind, ref.namespace, ref.name, ref.uid)

    async def _guarded(self, ref: ObjectRef, request: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
        """Send a request that is made for one version of an object.

        If the object has changed since, read it again and raise Outdated.
        """
        try:
            return await request
        except ApiError as error:
            if not (error.conflict or error.not_found):
                raise
            await self.refresh(ref)
            raise Outdated(f"{ref.kind} {ref.name} has changed: {error.message}") from None

    async def refresh(self, ref: ObjectRef) -> None:
        """Read one object again, so that the cache is up to date about it."""
        try:
            self._cache.put(await self._api.get(resource_of(ref.kind), ref.namespace, ref.name))
        except ApiError as error:
            if not error.not_found:
                raise
            live = self._live(ref)
            if live is not None:
                self._cache.remove(ref.kind, ref.namespace, ref.name, live["metadata"]["uid"])

    def _live(self, ref: ObjectRef) -> Manifest | None:
        return self._cache.get(ref.kind, ref.namespace, ref.name)


def _check_owner(desired: Manifest, live: Manifest) -> None:
    """Raise NameTaken if the live object has another owner or is being deleted."""
    what = f"{live['kind']} {live['metadata']['name']}"
    if controller_uid(desired) != controller_uid(live):
        raise NameTaken(
            f"{what} already exists and belongs to another owner: delete it, or wait until it is gone"
        )
    if "deletionTimestamp" in live["metadata"]:
        raise NameTaken(f"{what} is being deleted; it is created again when it is gone")


def _check_same(desired: Manifest, live: Manifest) -> None:
    """Raise NameTaken unless the live object was created for the same owner and the same inputs."""
    _check_owner(desired, live)
    if _inputs(desired) != _inputs(live):
        what = f"{live['kind']} {live['metadata']['name']}"
        raise NameTaken(
            f"{what} already exists and was created for other inputs: delete it, so that it is created again"
        )


def _inputs(manifest: Manifest) -> tuple[str, str]:
    annotations = manifest["metadata"].get("annotations") or {}
    return annotations.get(labels.CONFIG_DIGEST, ""), (manifest.get("spec") or {}).get("inputsDigest", "")
