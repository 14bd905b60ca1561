"""Carries out a Plan, in an order in which the operator may be killed at any point without losing anything.

Objects that are created once (revisions, Jobs) come first, then objects that are kept as desired, then annotations, replicas
and the Jobs to start, then statuses, then deletions, and events last. Every answer of the API server enters the cache at once.
An object that is as desired costs no request, so a settled cluster sees no writes.

An object is created by a request that fails if its name is taken. Whatever has the name is then read and changed only if
it is ours (ownership.py). Every request that changes or deletes an object names its uid, so it never meets another that
got the name meanwhile. If a name is taken, replicas and Jobs of the plan are still seen to, since they exist already;
statuses, deletions and events wait, since they were decided for a cluster in which the object could be made.
"""

from collections.abc import Coroutine, Mapping
from typing import Any

from moe_formats.resources import labels
from moe_operator.cluster.api_client import ApiClient, ApiError
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.contest import Contest
from moe_operator.cluster.events import EventSender
from moe_operator.cluster.managed_fields import handed_to_apply
from moe_operator.cluster.ownership import NameTaken, check_owner, check_same, is_orphan
from moe_operator.cluster.resources import CLAIM, POD, WATCHED, Resource, label_of, ref_of, resource_of
from moe_operator.state import Manifest, ObjectRef, Plan, StatusWrite
from moe_operator.subset import is_as_desired, is_subset, replacement

#: Largest number of left-over objects that a message lists.
LISTED = 24


class Outdated(Exception):
    """An object has changed since the plan was made, so the plan has to be made again."""


class Applier:
    """Sends the requests that plans consist of."""

    def __init__(self, api: ApiClient, cache: Cache) -> None:
        """Send requests through ``api``, and put every answer into ``cache``."""
        self._api = api
        self._cache = cache
        self._events = EventSender(api)
        self._contest = Contest()

    async def carry_out(self, plan: Plan, about: Manifest) -> None:
        """Carry out the plan about the object ``about``, which is also the object of its events.

        Raises Outdated if an object has changed meanwhile, NameTaken if a name is taken, ApiError if the API server
        refuses a request, and aiohttp.ClientError or TimeoutError if it does not answer.
        """
        taken = await self._make(plan)
        for ref, annotations in plan.annotate:
            await self._mark(ref, annotations=annotations)
        for ref, queue in plan.enqueue:
            await self._mark(ref, labels={labels.QUEUE: queue})
        for ref, replicas in plan.scale:
            await self._set(ref, "replicas", replicas, subresource="scale")
        for ref in plan.resume:
            await self._set(ref, "suspend", False)
        for ref in plan.suspend:
            await self._set(ref, "suspend", True)
        if taken is not None:
            raise taken
        for write in plan.statuses:
            await self._write_status(write)
        for ref in plan.delete:
            await self._delete(ref)
        for event in plan.events:
            await self._events.send(event, about)

    async def _make(self, plan: Plan) -> NameTaken | None:
        """Create and apply objects up to the first whose name is taken, and return why it could not be made.

        Objects that are used by others come first in a plan, so nothing is made that would use a foreign object.
        """
        try:
            for manifest in plan.create:
                await self._create(manifest)
            for manifest in plan.apply:
                await self._apply(manifest)
        except NameTaken as error:
            return NameTaken(f"{error}. {self._left_over(manifest)}") if error.left_over else error
        return None

    def _left_over(self, manifest: Manifest) -> str:
        """Return the command that deletes all that may be left over like the object in the way of a manifest."""
        metadata = manifest["metadata"]
        pool, expert = label_of(manifest, labels.POOL), label_of(manifest, labels.EXPERT)
        found = [
            f"{resource.plural.removesuffix('s')}{'.' + resource.group if resource.group else ''}/{item['metadata']['name']}"
            for resource in WATCHED
            if resource not in (CLAIM, POD)
            for item in self._cache.of_pool(resource.kind, metadata["namespace"], pool)
            if is_orphan(item) and label_of(item, labels.EXPERT) == expert
        ]
        more = f", and {len(found) - LISTED} more after that" if len(found) > LISTED else ""
        return (
            f"If it is left over, delete all of it: `kubectl delete {' '.join(sorted(found)[:LISTED])}`{more}"
        )

    async def _create(self, manifest: Manifest) -> None:
        """Create an object once. It is a success if it is there already, of the same owner and for the same inputs."""
        resource, ref = resource_of(manifest["kind"]), ref_of(manifest)
        live = self._live(ref)
        if live is None:
            if await self._is_new(resource, manifest):
                return
            live = await self._guarded(ref, self._api.get(resource, ref.namespace, ref.name))
        check_same(manifest, live)
        if not is_subset(manifest["metadata"]["labels"], live["metadata"].get("labels") or {}):
            change = {"metadata": {"uid": live["metadata"]["uid"], "labels": manifest["metadata"]["labels"]}}
            live = await self._guarded(ref_of(live), self._api.merge(resource, ref, change))
        self._cache.put(live)

    async def _apply(self, manifest: Manifest) -> None:
        """Create an object, or change it to what is desired if it is ours."""
        resource, ref = resource_of(manifest["kind"]), ref_of(manifest)
        live = self._live(ref)
        if live is not None:
            check_owner(manifest, live)
            if is_as_desired(manifest, live):
                return
        elif await self._is_new(resource, manifest):
            return
        live = await self._guarded(ref, self._api.get(resource, ref.namespace, ref.name))
        check_owner(manifest, live)
        if not is_as_desired(manifest, live):
            self._contest.about_to_change(manifest, live["metadata"]["uid"])
            live = await self._guarded(ref_of(live), self._overwrite(manifest, live))
        self._cache.put(live)

    async def _is_new(self, resource: Resource, manifest: Manifest) -> bool:
        """Create an object unless its name is taken, and return whether it was created."""
        try:
            self._cache.put(await self._api.create(resource, manifest))
        except ApiError as error:
            if not error.already_exists:
                raise
            return False
        return True

    async def _overwrite(self, manifest: Manifest, live: Manifest) -> dict[str, Any]:
        """Apply a manifest to the object ``live`` and to no other that may get its name meanwhile."""
        resource, ref = resource_of(manifest["kind"]), ref_of(live)
        bound = {**manifest, "metadata": {**manifest["metadata"], "uid": ref.uid}}
        fields = handed_to_apply(live)
        if fields is not None:
            version = live["metadata"]["resourceVersion"]
            await self._api.replace_managed_fields(resource, ref, fields, version)
        answer = await self._api.apply(resource, bound)
        if not is_as_desired(manifest, answer):
            # Apply leaves what somebody added to a list or a map of ours. A merge replaces lists, and null takes keys out.
            answer = await self._api.merge(resource, ref, replacement(bound, answer))
        return answer

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

    async def _mark(self, ref: ObjectRef, **marks: Mapping[str, str]) -> None:
        """Add annotations or labels to an object. Raises Outdated if it is gone or another."""
        change = {"metadata": {"uid": ref.uid, **marks}}
        request = self._api.merge(resource_of(ref.kind), ref, change)
        self._cache.put(await self._guarded(ref, request))

    async def _write_status(self, write: StatusWrite) -> None:
        resource, ref = resource_of(write.target.kind), write.target
        answer = self._api.replace_status(resource, ref, write.status, write.resource_version)
        self._cache.put(await self._guarded(ref, answer))

    async def _delete(self, ref: ObjectRef) -> None:
        """Delete the object with that uid, at the version that is known: if it has changed, its deletion is decided anew."""
        live, resource = self._live(ref), resource_of(ref.kind)
        if live is None or live["metadata"]["uid"] != ref.uid:
            return
        try:
            answer = await self._api.delete(resource, ref, live["metadata"]["resourceVersion"])
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
            found = await self._found(ref)
            if found is not None and found["metadata"]["uid"] == ref.uid:
                self._cache.put(found)
                return
            answer = {}
        if answer.get("kind") == ref.kind:
            self._cache.put(answer)  # Somebody's finalizer still holds the object.
        else:
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
        known, found = self._live(ref), await self._found(ref)
        shown = found if found is not None and resource_of(ref.kind).shows(found) else None
        if known is not None and (shown is None or shown["metadata"]["uid"] != known["metadata"]["uid"]):
            self._cache.remove(ref.kind, ref.namespace, ref.name, known["metadata"]["uid"])
        if shown is not None:
            self._cache.put(shown)

    async def _found(self, ref: ObjectRef) -> Manifest | None:
        """Return whatever object has the name now, or None."""
        try:
            return await self._api.get(resource_of(ref.kind), ref.namespace, ref.name)
        except ApiError as error:
            if not error.not_found:
                raise
            return None

    def _live(self, ref: ObjectRef) -> Manifest | None:
        return self._cache.get(ref.kind, ref.namespace, ref.name)
