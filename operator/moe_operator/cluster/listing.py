"""Fills the cache before anything is decided, and compares it with the API server from time to time (a sweep).

A watch that starts again after a gap does not report what was deleted meanwhile. A sweep lists only metadata. It
removes objects that are gone from the cache, and reads objects again that the watch missed.
"""

import asyncio
import logging
import time
from collections.abc import Sequence

import aiohttp
from prometheus_client import Counter

from moe_operator.cluster.api_client import ApiClient, ApiError
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.confine import confined
from moe_operator.cluster.resources import WATCHED, Resource

log = logging.getLogger(__name__)

#: Seconds until a list is tried again at the start, for example while the CRDs are being installed.
RETRY_SECONDS = 1.0
#: Seconds until the first sweep. It follows soon, since it covers the gap between our lists and the start of the watches.
FIRST_SWEEP_SECONDS = 15.0


class Lister:
    """Lists all watched kinds, in all watched namespaces."""

    def __init__(self, api: ApiClient, cache: Cache, namespaces: Sequence[str], repairs: Counter) -> None:
        """List in ``namespaces``, or in all namespaces if it is empty; count in ``repairs`` what the watches missed."""
        self._api = api
        self._cache = cache
        self._namespaces = tuple(namespaces) or ("",)
        self._repairs = repairs
        self._swept = time.monotonic()

    def sweep_age(self) -> float:
        """Return the seconds since the last complete list or sweep."""
        return time.monotonic() - self._swept

    async def prime(self) -> None:
        """List everything into the cache; try until it succeeds."""
        for resource in WATCHED:
            for namespace in self._namespaces:
                while not await self._prime(resource, namespace):
                    await asyncio.sleep(RETRY_SECONDS)
        self._swept = time.monotonic()

    async def sweep(self, every: float) -> None:
        """Compare the cache with the API server every ``every`` seconds, until cancelled."""
        await asyncio.sleep(min(FIRST_SWEEP_SECONDS, every))
        while True:
            try:
                for resource in WATCHED:
                    for namespace in self._namespaces:
                        await self.sweep_once(resource, namespace)
                self._swept = time.monotonic()
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("the sweep failed and is tried again in %.0f s: %s", every, error)
            except Exception:  # Whatever this sweep met, the next one must still be made.
                log.exception("the sweep failed and is tried again in %.0f s", every)
            await asyncio.sleep(every)

    async def sweep_once(self, resource: Resource, namespace: str) -> None:
        """Compare one kind: remove objects that are gone from the cache, and read those that have another version."""
        before = {
            (item["metadata"]["namespace"], item["metadata"]["name"]): item
            for item in self._cache.all(resource.kind)
            if not namespace or item["metadata"]["namespace"] == namespace
        }
        listing = await self._api.list(resource, namespace, metadata_only=True)
        found: dict[tuple[str, str], str] = {}
        for item in listing.items:
            with confined(item, "reading its metadata"):
                metadata = item["metadata"]
                found[metadata["namespace"], metadata["name"]] = metadata["resourceVersion"]
        for place, version in found.items():
            known = before.pop(place, None)
            if known is None or known["metadata"]["resourceVersion"] != version:
                await self._repair(resource, *place)
        for (where, name), missing in before.items():
            if int(missing["metadata"]["resourceVersion"]) <= listing.resource_version:
                uid = missing["metadata"]["uid"]
                if self._cache.remove(resource.kind, where, name, uid, listing.resource_version):
                    self._repairs.inc()

    async def _prime(self, resource: Resource, namespace: str) -> bool:
        try:
            for item in (await self._api.list(resource, namespace)).items:
                with confined(item, "reading it"):
                    self._cache.put(item)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("listing %s failed and is tried again: %s", resource.plural, error)
            return False
        return True

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
