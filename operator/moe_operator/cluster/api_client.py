"""A thin asynchronous client of the API server: JSON in, JSON out.

It is built on aiohttp, since the asynchronous client of the kubernetes package alone would need 45 MB of memory.
Requests are repeated after status 429, after server errors and after lost connections. Every request of the operator
may be repeated: names are deterministic, and a create that was repeated is recognised by its owner and inputs.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import aiohttp

from moe_formats.resources.labels import FIELD_MANAGER
from moe_operator.cluster.connection import Connection
from moe_operator.cluster.resources import Resource
from moe_operator.state import Manifest, ObjectRef

log = logging.getLogger(__name__)

#: Seconds that one request may take.
REQUEST_SECONDS = 30
#: Seconds of delay before each repetition of a request; after the last one, the request has failed.
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0)
#: HTTP statuses after which a request is repeated.
RETRIED = frozenset({429, 500, 502, 503, 504})
#: Longest delay in seconds that is taken from a Retry-After header.
LONGEST_RETRY_AFTER = 10.0
#: Number of objects per page of a list. A page is held as a whole, at some ten times the size of its text.
PAGE = 100

METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
APPLY_PATCH = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        """Keep the HTTP status, the reason as one word, and the message."""
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def not_found(self) -> bool:
        """Whether the object does not exist."""
        return self.status == 404

    @property
    def already_exists(self) -> bool:
        """Whether an object of that name exists already."""
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """Whether the object has changed since it was read, or is another one with the same name.

        The API server calls a patch invalid that names the uid of an object that was replaced by another.
        """
        replaced = self.status == 422 and "metadata.uid" in self.message
        return replaced or (self.status == 409 and self.reason != "AlreadyExists")


#: Returns what is kept of an object of a list.
Keep = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind at one resourceVersion, or what was kept of them."""

    items: list[dict[str, Any]]
    resource_version: int


class ApiClient:
    """One connection pool to one API server."""

    def __init__(self, connection: Connection, *, may_write: Callable[[], None] = lambda: None) -> None:
        """Connect with the first request. ``may_write`` is called before each write and raises if it is not allowed."""
        self._connection = connection
        self._may_write = may_write
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=connection.ssl_context(), limit=32),
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=5),
            headers={"User-Agent": f"{FIELD_MANAGER}/{version('moe-operator')}"},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def list(
        self, resource: Resource, namespace: str = "", *, metadata_only: bool = False, keep: Keep = dict
    ) -> Listing:
        """Return all objects of a kind that the operator reads, of one namespace or of all: what ``keep`` makes of each.

        The list is read page by page, and no page is held longer than until ``keep`` has seen its objects. If a page has
        expired, the list is read again from the beginning.
        """
        for _ in range(3):
            try:
                return await self._list_once(resource, namespace, metadata_only, keep)
            except ApiError as error:
                if error.status != 410:
                    raise
        raise ApiError(410, "Expired", f"listing {resource.plural} expired three times")

    async def _list_once(
        self, resource: Resource, namespace: str, metadata_only: bool, keep: Keep
    ) -> Listing:
        query = {"limit": str(PAGE)}
        if resource.selector:
            query["labelSelector"] = resource.selector
        headers = {"Accept": METADATA_ONLY} if metadata_only else {}
        kind = {"apiVersion": resource.api_version, "kind": resource.kind}
        items: list[dict[str, Any]] = []
        while True:
            page = await self._request("GET", resource.path(namespace), query=query, headers=headers)
            items += [keep(item | kind) for item in page.get("items") or []]
            metadata = page["metadata"]
            del page
            if not metadata.get("continue"):
                return Listing(items, int(metadata["resourceVersion"]))
            query["continue"] = metadata["continue"]

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        """Return an object. Raises ApiError (404) if it does not exist."""
        return await self._request("GET", resource.path(namespace, name))

    async def create(self, resource: Resource, manifest: Manifest) -> dict[str, Any]:
        """Create an object and return it. Raises ApiError (409 AlreadyExists) if its name is taken."""
        path = resource.path(manifest["metadata"].get("namespace", ""))
        return await self._request("POST", path, manifest, query={"fieldManager": FIELD_MANAGER})

    async def replace(self, resource: Resource, manifest: Manifest) -> dict[str, Any]:
        """Replace an object and return it. Raises ApiError (409) if it is no longer at the manifest's resourceVersion."""
        metadata = manifest["metadata"]
        return await self._request("PUT", resource.path(metadata["namespace"], metadata["name"]), manifest)

    async def apply(self, resource: Resource, manifest: Manifest) -> dict[str, Any]:
        """Apply a manifest (server-side apply) and return the object; fields that others have set are taken over.

        The manifest names the uid of the object that is meant. Raises ApiError (422) if its name has passed to another.
        """
        require_uid(manifest)
        metadata = manifest["metadata"]
        return await self._patch(
            resource.path(metadata["namespace"], metadata["name"]),
            manifest,
            APPLY_PATCH,
            {"fieldManager": FIELD_MANAGER, "force": "true"},
        )

    async def merge(
        self, resource: Resource, ref: ObjectRef, change: Manifest, *, subresource: str = ""
    ) -> dict[str, Any]:
        """Merge a change into an object or one of its subresources, and return the result.

        The change names the uid of the object that is meant. Raises ApiError (422, or 409 for a subresource) if its name
        has passed to another.
        """
        require_uid(change)
        path = resource.path(ref.namespace, ref.name, subresource)
        return await self._patch(path, change, MERGE_PATCH, {"fieldManager": FIELD_MANAGER})

    async def replace_status(
        self, resource: Resource, ref: ObjectRef, status: Manifest, resource_version: str
    ) -> dict[str, Any]:
        """Replace an object's status. Raises ApiError (409) if the object is no longer at that resourceVersion."""
        change = [
            {"op": "add", "path": "/metadata/resourceVersion", "value": resource_version},
            {"op": "add", "path": "/status", "value": status},
        ]
        path = resource.path(ref.namespace, ref.name, "status")
        return await self._patch(path, change, JSON_PATCH, {"fieldManager": FIELD_MANAGER})

    async def replace_managed_fields(
        self, resource: Resource, ref: ObjectRef, fields: Sequence[Manifest], resource_version: str
    ) -> dict[str, Any]:
        """Replace ``metadata.managedFields``. Raises ApiError (409) if the object is no longer at that resourceVersion."""
        change = [
            {"op": "add", "path": "/metadata/resourceVersion", "value": resource_version},
            {"op": "add", "path": "/metadata/managedFields", "value": fields},
        ]
        path = resource.path(ref.namespace, ref.name)
        return await self._patch(path, change, JSON_PATCH, {"fieldManager": FIELD_MANAGER})

    async def delete(self, resource: Resource, ref: ObjectRef, resource_version: str) -> dict[str, Any]:
        """Delete an object, and in the background what it owns.

        Raises ApiError (409) if it is not the object with the uid of ``ref`` at that resourceVersion.
        """
        only = {"uid": ref.uid, "resourceVersion": resource_version}
        options = {"propagationPolicy": "Background", "preconditions": only}
        return await self._request("DELETE", resource.path(ref.namespace, ref.name), options)

    async def _patch(
        self, path: str, body: Any, content_type: str, query: Mapping[str, str]
    ) -> dict[str, Any]:
        return await self._request("PATCH", path, body, query=query, headers={"Content-Type": content_type})

    async def _request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a request and return its answer; repeat it after each delay if it fails in a way that may pass.

        Raises ApiError, aiohttp.ClientError or TimeoutError.
        """
        for delay in (*RETRY_SECONDS, None):
            if method != "GET":
                self._may_write()
            try:
                return await self._send(method, path, body, query or {}, headers or {})
            except _TryAgain as failure:
                if delay is None:
                    raise failure.error from None
                log.debug("%s %s is repeated: %s", method, path, failure.error)
                await asyncio.sleep(min(max(delay, failure.after), LONGEST_RETRY_AFTER))
        raise AssertionError("unreachable")

    async def _send(
        self, method: str, path: str, body: Any, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        sent = {"Accept": "application/json", "Content-Type": "application/json", **headers}
        if authorization := self._connection.authorization():
            sent["Authorization"] = authorization
        data = None if body is None else json.dumps(body).encode()
        url = self._connection.server + path
        try:
            async with self._session.request(method, url, data=data, params=query, headers=sent) as response:
                text = await response.read()
                if response.status < 300:
                    result: dict[str, Any] = json.loads(text)
                    return result
                error = _api_error(response.status, text)
                if response.status in RETRIED:
                    raise _TryAgain(error, _seconds(response.headers.get("Retry-After")))
                raise error
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
            raise _TryAgain(error, 0) from error


def require_uid(body: Manifest) -> None:
    """Raise ValueError unless a patch names the uid of the object that it is meant for: a name may pass to another."""
    metadata = body.get("metadata") or {}
    if not metadata.get("uid"):
        raise ValueError(f"a patch of {metadata.get('name', 'an object')} has to name its metadata.uid")


class _TryAgain(Exception):
    """A request failed in a way that may pass; it may be repeated after ``after`` seconds."""

    def __init__(self, error: Exception, after: float) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after


def _api_error(status: int, text: bytes) -> ApiError:
    try:
        answer = json.loads(text)
        return ApiError(status, answer.get("reason") or "Unknown", answer.get("message") or "")
    except (ValueError, AttributeError):
        return ApiError(status, "Unknown", text[:200].decode(errors="replace"))


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdigit() else 0.0
