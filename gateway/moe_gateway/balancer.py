"""Chooses the replica of an Expert for the next request: the least loaded address behind its host name.

Addresses are cached for half a second at most, so a replica that appears or disappears is noticed at once. An
address that has just failed is chosen only if there is no other, for one second. An address that no pod can have, such
as that of a cloud's metadata service, is never chosen, whatever the name resolves to.
"""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from moe_formats.addresses import OUTSIDE_A_CLUSTER, is_pod_address

#: Returns the addresses of a host and port; none if the name is unknown.
Resolve = Callable[[str, int], Awaitable[tuple[str, ...]]]

#: Seconds for which the addresses of a name are cached.
RESOLUTION_SECONDS = 0.5
#: Seconds for which an address that failed is avoided.
SUSPICION_SECONDS = 1.0


@dataclass(frozen=True, order=True)
class Replica:
    """One server of an Expert."""

    address: str
    port: int

    @property
    def url(self) -> str:
        """Return the base URL."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}"


async def resolve_name(host: str, port: int) -> tuple[str, ...]:
    """Return the addresses by the system's resolver; an unknown name has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return ()
    return tuple(sorted({str(address[0]) for *_, address in found}))


class Balancer:
    """Counts the requests in flight per replica and picks the least loaded."""

    def __init__(
        self,
        *,
        own_address: str = OUTSIDE_A_CLUSTER,
        resolve: Resolve = resolve_name,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Send requests from ``own_address``. Tests pass their own resolver and clock."""
        self._own_address = own_address
        self._resolve = resolve
        self._clock = clock
        self._resolved: dict[tuple[str, int], tuple[float, tuple[str, ...]]] = {}
        self._failed_at: dict[Replica, float] = {}
        self._in_flight: Counter[Replica] = Counter()
        self._turn = 0

    async def pick(self, host: str, port: int, avoid: Collection[Replica] = ()) -> Replica | None:
        """Return the replica for the next request, or None if no address is left besides those in `avoid`."""
        replicas = [Replica(address, port) for address in await self._addresses(host, port)]
        candidates = [replica for replica in replicas if replica not in avoid]
        if not candidates:
            return None
        self._turn += 1
        first = self._turn % len(candidates)
        rotated = candidates[first:] + candidates[:first]
        return min(rotated, key=lambda replica: (self._is_suspect(replica), self._in_flight[replica]))

    @contextmanager
    def in_flight(self, replica: Replica) -> Iterator[None]:
        """Count a request as in flight at the replica until the block is left."""
        self._in_flight[replica] += 1
        try:
            yield
        finally:
            self._in_flight[replica] -= 1
            if not self._in_flight[replica]:
                del self._in_flight[replica]

    def failed(self, replica: Replica) -> None:
        """Note that the replica refused or dropped a request; its name will be resolved anew."""
        now = self._clock()
        recent = {other: at for other, at in self._failed_at.items() if now - at < SUSPICION_SECONDS}
        self._failed_at = recent | {replica: now}
        self._resolved = {
            key: (at, addresses)
            for key, (at, addresses) in self._resolved.items()
            if replica.address not in addresses and now - at < RESOLUTION_SECONDS
        }

    def _is_suspect(self, replica: Replica) -> bool:
        failed_at = self._failed_at.get(replica)
        return failed_at is not None and self._clock() - failed_at < SUSPICION_SECONDS

    async def _addresses(self, host: str, port: int) -> tuple[str, ...]:
        known = self._resolved.get((host, port))
        if known is not None and self._clock() - known[0] < RESOLUTION_SECONDS:
            return known[1]
        asked_at = self._clock()
        found = await self._resolve(host, port)
        addresses = tuple(address for address in found if is_pod_address(address, own=self._own_address))
        if addresses:
            self._resolved[host, port] = (asked_at, addresses)
        return addresses
