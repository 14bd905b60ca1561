"""Lets only one operator act at a time: the holder of a Lease. A process that loses the Lease to another ends.

The holder renews the Lease each time a third of its duration has passed. Once two thirds have passed without a renewal,
it writes nothing: so it has stopped before another operator may start, whatever its network does. If it still holds the
Lease when the API server answers again, it continues. A restarted container of the same pod takes the Lease at once,
since the process before it is dead. A Lease of that name that belongs to another program is never taken.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp

from moe_formats.resources.labels import FIELD_MANAGER, MANAGED_BY
from moe_operator.cluster.api_client import ApiClient, ApiError
from moe_operator.cluster.resources import LEASE, controller_of, label_of
from moe_operator.state import Manifest

log = logging.getLogger(__name__)

#: Name of the operator's Lease, in its own namespace, if the configuration names no other.
LEASE_NAME = "moe-operator"

#: Seconds between two attempts to get the Lease, or to renew it after a failure.
RETRY_SECONDS = 2.0


class LeaseLost(Exception):
    """Another operator holds the Lease, so this process must end."""


class LeaseNotRenewed(Exception):
    """The Lease was not renewed in time, so nothing may be written until it is."""


class Lease:
    """The operator's Lease, as one holder takes and renews it."""

    def __init__(
        self,
        *,
        namespace: str,
        name: str,
        holder: str,
        seconds: float,
        annotations: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use the Lease ``namespace/name`` as ``holder``; each renewal is valid for ``seconds``.

        The Lease gets ``annotations``, which say something about its holder.
        """
        self._annotations = dict(annotations or {})
        self._clock = clock
        self._namespace = namespace
        self._name = name
        self._holder = holder
        self._seconds = seconds
        self._good_until = 0.0
        self._live: Manifest | None = None
        #: Another holder's name and time of renewal as last read, and the time on our own clock when it was first read.
        self._seen: tuple[str, float] = ("", 0.0)
        #: Who holds the Lease that this process waits for, as a sentence; empty while it waits for nobody.
        self.waits = ""
        #: What was last said about a Lease that belongs to another program.
        self._said = ""

    def check(self) -> None:
        """Raise LeaseNotRenewed unless the Lease is certainly held. Called before every write."""
        if self._clock() > self._good_until:
            raise LeaseNotRenewed(f"the Lease {self._namespace}/{self._name} was not renewed in time")

    async def acquire(self, api: ApiClient) -> None:
        """Wait until this process holds the Lease."""
        announced = False
        while not await self.try_once(api):
            if not announced:
                log.info("waiting for the Lease %s/%s: %s", self._namespace, self._name, self.waits)
                announced = True
            await asyncio.sleep(RETRY_SECONDS)

    async def keep(self, api: ApiClient) -> None:
        """Renew the Lease until cancelled. Raises LeaseLost."""
        while True:
            await asyncio.sleep(self._seconds / 3 if await self.try_once(api) else RETRY_SECONDS)

    async def release(self, api: ApiClient) -> None:
        """Give the Lease back, so that the next operator can start at once."""
        if self._live is not None and self._clock() < self._good_until:
            try:
                await api.replace(LEASE, {**self._live, "spec": {**self._live["spec"], "holderIdentity": ""}})
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("the Lease was not released: %s", error)
        self._good_until = 0.0

    async def try_once(self, api: ApiClient) -> bool:
        """Take or renew the Lease once, and return whether that succeeded. Raises LeaseLost if another has taken it."""
        started = self._clock()
        try:
            live = await self._read(api)
            if live is not None and not self._is_free(live):
                self.waits = f"the Lease {self._namespace}/{self._name} is held by {self._holder_of(live)}"
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
        self.waits = ""
        return True

    @staticmethod
    def _holder_of(live: Manifest) -> str:
        return _other_program(live) or str(live["spec"].get("holderIdentity"))

    async def _read(self, api: ApiClient) -> Manifest | None:
        try:
            return await api.get(LEASE, self._namespace, self._name)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    def _is_free(self, live: Manifest) -> bool:
        """Return whether the Lease is ours, was given back, or has not been renewed in time, by our own clock.

        A Lease of another program is never free. Operators before this rule gave theirs no label, so a Lease without
        label and owner is one of an operator.
        """
        whose = _other_program(live)
        if whose and whose != self._said:
            log.error(
                "the Lease %s/%s belongs to %s, so no operator starts here: delete that Lease, or install the operator "
                "in another namespace",
                self._namespace,
                self._name,
                whose,
            )
        self._said = whose
        if whose:
            return False
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
        metadata: dict[str, Any] = (
            dict(live["metadata"])
            if live is not None
            else {"name": self._name, "namespace": self._namespace, "labels": {MANAGED_BY: FIELD_MANAGER}}
        )
        if self._annotations:
            metadata["annotations"] = {**(metadata.get("annotations") or {}), **self._annotations}
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}


def _other_program(live: Manifest) -> str:
    """Return which other program a Lease belongs to, by its controlling owner or its label; empty if it names none."""
    owner, tool = controller_of(live), label_of(live, MANAGED_BY)
    if owner is not None:
        return f"{owner.kind} {owner.name}"
    return tool if tool != FIELD_MANAGER else ""
