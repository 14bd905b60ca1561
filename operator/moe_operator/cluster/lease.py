"""One operator acts: the holder of a Lease. Losing it to another ends the process.

The holder renews every third of the lease's time and writes nothing once two thirds have passed without a
renewal, so that it has stopped before another may start, whatever its network does. If the Lease is still
its own when the API server answers again, it goes on. A restarted container of the same pod takes its
Lease over at once: its predecessor is dead.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp

from moe_operator.cluster.api_client import ApiClient, ApiError
from moe_operator.cluster.resources import LEASE
from moe_operator.state import Manifest

log = logging.getLogger(__name__)

#: Seconds between two tries to get the Lease.
RETRY_SECONDS = 2.0


class LeaseLost(Exception):
    """Somebody else holds the Lease: this process must end."""


class LeaseNotRenewed(Exception):
    """The Lease could not be renewed in time: nothing may be written until it is."""


class Lease:
    """The operator's Lease, by one holder's name."""

    def __init__(
        self,
        *,
        namespace: str,
        name: str,
        holder: str,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hold the Lease ``namespace/name`` as ``holder`` for ``seconds`` after each renewal."""
        self._clock = clock
        self._namespace = namespace
        self._name = name
        self._holder = holder
        self._seconds = seconds
        self._good_until = 0.0
        self._live: Manifest | None = None
        #: The foreign holder's last sign of life as it was read, and when we read it by our own clock.
        self._seen: tuple[str, float] = ("", 0.0)

    def check(self) -> None:
        """Raise LeaseNotRenewed unless the Lease is surely held; asked before every write."""
        if self._clock() > self._good_until:
            raise LeaseNotRenewed(f"the Lease {self._namespace}/{self._name} was not renewed in time")

    async def acquire(self, api: ApiClient) -> None:
        """Wait until the Lease is ours."""
        announced = False
        while not await self.try_once(api):
            if not announced:
                log.info("waiting for the Lease %s/%s", self._namespace, self._name)
                announced = True
            await asyncio.sleep(RETRY_SECONDS)

    async def keep(self, api: ApiClient) -> None:
        """Renew for ever; raises LeaseLost."""
        while True:
            await asyncio.sleep(self._seconds / 3 if await self.try_once(api) else RETRY_SECONDS)

    async def release(self, api: ApiClient) -> None:
        """Let the next operator start at once."""
        if self._live is not None and self._clock() < self._good_until:
            try:
                await api.replace(LEASE, {**self._live, "spec": {**self._live["spec"], "holderIdentity": ""}})
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("the Lease was not released: %s", error)
        self._good_until = 0.0

    async def try_once(self, api: ApiClient) -> bool:
        """Take or renew the Lease; return whether it is ours now. Raises LeaseLost if it went to another."""
        started = self._clock()
        try:
            live = await self._read(api)
            if live is not None and not self._is_free(live):
                if self._live is not None:
                    raise LeaseLost(f"the Lease is now held by {live['spec'].get('holderIdentity')}")
                return False
            if live is None:
                self._live = await api.create(LEASE, self._manifest(None))
            else:
                self._live = await api.replace(LEASE, self._manifest(live))
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("the Lease was not taken or renewed: %s", error)
            return False
        self._good_until = started + self._seconds * 2 / 3
        return True

    async def _read(self, api: ApiClient) -> Manifest | None:
        try:
            return await api.get(LEASE, self._namespace, self._name)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    def _is_free(self, live: Manifest) -> bool:
        """Whether the Lease is ours, given back, or not renewed for its time by our own clock."""
        spec = live["spec"]
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._holder):
            return True
        sign = f"{holder} {spec.get('renewTime')}"
        if sign != self._seen[0]:
            self._seen = (sign, self._clock())
        return self._clock() - self._seen[1] > float(spec.get("leaseDurationSeconds") or self._seconds)

    def _manifest(self, live: Manifest | None) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict(live["spec"]) if live is not None else {}
        if spec.get("holderIdentity") != self._holder:
            changes = spec.get("leaseTransitions", 0) + (1 if live is not None else 0)
            spec |= {"holderIdentity": self._holder, "acquireTime": now, "leaseTransitions": changes}
        spec |= {"renewTime": now, "leaseDurationSeconds": max(1, round(self._seconds))}
        metadata = (
            live["metadata"] if live is not None else {"name": self._name, "namespace": self._namespace}
        )
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}
