"""Fills the cache before anything is decided, and compares it with the API server from time to time (a sweep).

A watch that starts again after a gap does not report what was deleted meanwhile. A sweep lists only metadata. It
removes objects that are gone from the cache, and reads objects again that the watch missed.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
from prometheus_client import Counter

from moe_operator.cluster.api_client import ApiClient, ApiError
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.confine import confined
from moe_operator.cluster.reduced import reduced
from moe_operator.cluster.resources import WATCHED, Resource
from moe_operator.cluster.sound import sound

log = logging.getLogger(__name__)

#: Seconds until a list is tried again at the start, for example while the CRDs are being installed.
RETRY_SECONDS = 1.0
#: Seconds until the first sweep. It follows soon, since it covers the gap between our lists and the start of the watches.
FIRST_SWEEP_SECONDS = 15.0
#: How often in a row the API server may forbid to list a namespace until that namespace is given up. At an installation,
#: the operator may start before its Roles are there.
GIVEN_UP_AFTER = 5


class NamespaceBack(Exception):
    """A namespace that was lost can be read again. Its watches have ended, so this process must end too."""


class Lister:
    """Lists all watched kinds, in all watched namespaces."""

    def __init__(self, api: ApiClient, cache: Cache, namespaces: Sequence[str], repairs: Counter) -> None:
        """List in ``namespaces``, or in all namespaces if it is empty; count in ``repairs`` what the watches missed."""
        self._api = api
        self._cache = cache
        self._namespaces = tuple(namespaces) or ("",)
        self._repairs = repairs
        self._swept = time.monotonic()
        #: Namespaces whose objects may not be read, for example since they were deleted, and their Roles with them.
        self._lost: set[str] = set()

    def sweep_age(self) -> float:
        """Return the seconds since the last complete list or sweep."""
        return time.monotonic() - self._swept

    async def prime(self) -> None:
        """List everything into the cache; try until it succeeds.

        A namespace whose objects may not be read is given up after some attempts, unless all of them are.
        """
        primed: set[str] = set()
        while not primed:
            for namespace in self._namespaces:
                if await self._prime_namespace(namespace):
                    primed.add(namespace)
                    self._lost.discard(namespace)
        self._swept = time.monotonic()

    async def sweep(self, every: float) -> None:
        """Compare the cache with the API server every ``every`` seconds, until cancelled. Raises NamespaceBack."""
        await asyncio.sleep(min(FIRST_SWEEP_SECONDS, every))
        while True:
            await self.sweep_all()
            await asyncio.sleep(every)

    async def sweep_all(self) -> None:
        """Compare all namespaces. What fails in one of them affects no other.

        Raises NamespaceBack if the objects of a namespace can be read again that was lost.
        """
        swept = [await self._sweep_namespace(namespace) for namespace in self._namespaces]
        if all(swept):
            self._swept = time.monotonic()

    async def _prime_namespace(self, namespace: str) -> bool:
        """List a namespace into the cache, and return whether its objects may be read."""
        for resource in WATCHED:
            refused = 0
            while (problem := await self._prime(resource, namespace)) is not None:
                refused += _is_lost(namespace, problem)
                if refused >= GIVEN_UP_AFTER:
                    self._lose(namespace, problem)
                    return False
                await asyncio.sleep(RETRY_SECONDS)
        return True

    async def _sweep_namespace(self, namespace: str) -> bool:
        """Compare a namespace, and return whether that was done. One that is lost counts as done."""
        try:
            for resource in WATCHED:
                await self.sweep_once(resource, namespace)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            if _is_lost(namespace, error):
                self._lose(namespace, error)
                return True
            log.warning("the sweep%s failed and is tried again later: %s", _where(namespace), error)
            return False
        except Exception:  # Whatever this sweep met, the next one must still be made.
            log.exception("the sweep%s failed and is tried again later", _where(namespace))
            return False
        if namespace in self._lost:
            raise NamespaceBack(f"the objects{_where(namespace)} can be read again")
        return True

    def _lose(self, namespace: str, error: Exception) -> None:
        """Note that the objects of a namespace may not be read any more, and say so once."""
        if namespace not in self._lost:
            log.error(
                "the objects%s may not be read, so nothing is done there: %s. Was the namespace deleted, or the Role in "
                "it? Create it again, or remove it from `namespaces` in the chart's values. Other namespaces are not "
                "affected",
                _where(namespace),
                error,
            )
        self._lost.add(namespace)

    async def sweep_once(self, resource: Resource, namespace: str) -> None:
        """Compare one kind: remove objects that are gone from the cache, and read those that have another version."""
        before = {
            (item["metadata"]["namespace"], item["metadata"]["name"]): item
            for item in self._cache.all(resource.kind)
            if not namespace or item["metadata"]["namespace"] == namespace
        }
        listing = await self._api.list(resource, namespace, metadata_only=True, keep=_place_and_version)
        found = {(item["namespace"], item["name"]): item["resourceVersion"] for item in listing.items if item}
        for place, version in found.items():
            known = before.pop(place, None)
            if known is None or known["metadata"]["resourceVersion"] != version:
                await self._repair(resource, *place)
        for (where, name), missing in before.items():
            if int(missing["metadata"]["resourceVersion"]) <= listing.resource_version:
                uid = missing["metadata"]["uid"]
                if self._cache.remove(resource.kind, where, name, uid, listing.resource_version):
                    self._repairs.inc()

    async def _prime(self, resource: Resource, namespace: str) -> Exception | None:
        """List one kind into the cache, and return what went wrong, if anything did."""
        try:
            items = (await self._api.list(resource, namespace, keep=_reduced)).items
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("listing %s%s failed: %s", resource.plural, _where(namespace), error)
            return error
        while items:  # Each of them is let go of as soon as the cache has its own copy.
            if item := items.pop():
                self._cache.put(item)
        return None

    async def _repair(self, resource: Resource, namespace: str, name: str) -> None:
        """Read one object again, and count it unless the watch has brought the same version meanwhile."""
        try:
            item = await self._api.get(resource, namespace, name)
        except ApiError as error:
            if not error.not_found:
                raise
            return
        with confined(item, "reading it"):
            if self._cache.put(item):
                self._repairs.inc()


def _reduced(item: dict[str, Any]) -> dict[str, Any]:
    """Return what the cache keeps of an object; nothing if it cannot be read."""
    with confined(item, "reading it"):
        return reduced(sound(item))
    return {}


def _place_and_version(item: dict[str, Any]) -> dict[str, Any]:
    """Return what a sweep compares of an object; nothing if it cannot be read."""
    with confined(item, "reading its metadata"):
        return {name: item["metadata"][name] for name in ("namespace", "name", "resourceVersion")}
    return {}


def _is_lost(namespace: str, error: Exception) -> bool:
    """Return whether an error means that the objects of one of several namespaces may not be read."""
    return bool(namespace) and isinstance(error, ApiError) and error.status == 403


def _where(namespace: str) -> str:
    return f" in namespace {namespace}" if namespace else ""
