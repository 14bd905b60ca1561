"""Keeps two releases from acting in the same namespaces: the one whose Lease is older acts, and the other stands aside.

Each operator writes into its Lease which namespaces it acts in. Only Leases in the operator's own namespace are believed, since
administrators write there; a Lease in a namespace of users could be anybody's imitation. Against a release in another
namespace there are the chart, which refuses it, and ``contest.py``, which keeps two operators from writing without end.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import aiohttp

from moe_formats.resources.labels import FIELD_MANAGER, MANAGED_BY
from moe_operator.cluster.api_client import ApiClient, ApiError
from moe_operator.cluster.resources import LEASE, label_of
from moe_operator.state import Manifest

log = logging.getLogger(__name__)

#: Annotation of a Lease: the namespaces that its operator acts in, separated by commas. Empty: all.
SCOPE = "moe-operator.dev/namespaces"
#: Seconds between two looks at the Leases of others.
LOOK_SECONDS = 5.0
#: How far the clocks of two operators may differ.
CLOCKS = timedelta(seconds=60)


class StandsAside(Exception):
    """Another release acts in the same namespaces and was there first, so this process must end."""


class Rival(NamedTuple):
    """Another release whose operator is alive and acts in some of the same namespaces."""

    lease: str
    holder: str
    #: In which namespaces both act, in words.
    where: str
    #: Whether its Lease is older than ours.
    first: bool


class Overlap:
    """Looks for other releases that act in the namespaces of this one."""

    def __init__(self, *, namespace: str, lease: str, scope: Sequence[str]) -> None:
        """Look in ``namespace`` for other Leases than ``lease``; ``scope`` has the namespaces of this one, none for all."""
        self._namespace = namespace
        self._lease = lease
        self._scope = tuple(scope)
        #: Which other release acts here, as a sentence; empty if none does that was there first.
        self.waits = ""
        self._said = ""

    async def clear(self, api: ApiClient) -> None:
        """Return once no release that was there first acts in the same namespaces."""
        while await self.look(api):
            await asyncio.sleep(LOOK_SECONDS)

    async def watch(self, api: ApiClient) -> None:
        """Look until cancelled. Raises StandsAside."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if await self.look(api):
                raise StandsAside(self.waits)

    async def look(self, api: ApiClient) -> bool:
        """Look once, and return whether another release was there first."""
        try:
            leases = (await api.list(LEASE, self._namespace)).items
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.debug("the Leases of other releases cannot be read: %s", error)
            return bool(self.waits)
        found = rivals(leases, self._lease, self._scope, datetime.now(UTC))
        first = next((rival for rival in found if rival.first), None)
        said = self._words(first or next(iter(found), None))
        self.waits = said if first is not None else ""
        if said != self._said and said:
            log.error("%s", said)
        self._said = said
        return first is not None

    def _words(self, rival: Rival | None) -> str:
        if rival is None:
            return ""
        ours = f"this one (Lease {self._namespace}/{self._lease})"
        theirs = f"another release (Lease {self._namespace}/{rival.lease}, held by {rival.holder})"
        acts = (
            f"{theirs} was there first: {ours} does nothing until it is gone"
            if rival.first
            else f"{ours} was there first: {theirs} stands aside"
        )
        return (
            f"two releases of moe-operator act {rival.where}; {acts}. Uninstall one of them, or list different namespaces in "
            "`namespaces` of both"
        )


def rivals(leases: Sequence[Manifest], own: str, scope: Sequence[str], now: datetime) -> list[Rival]:
    """Return the other releases that are alive and act in some namespaces of ``scope``, by their Leases; oldest first."""
    ours = next((item for item in leases if item["metadata"]["name"] == own), None)
    if ours is None:
        return []
    found = []
    for item in sorted(leases, key=_age):
        where = _common(scope, item)
        spec = item.get("spec") or {}
        if item is not ours and where is not None and _is_alive(item, spec, now):
            holder = str(spec.get("holderIdentity"))
            found.append(Rival(item["metadata"]["name"], holder, where, _age(item) < _age(ours)))
    return found


def _age(lease: Manifest) -> tuple[str, str]:
    return str(lease["metadata"].get("creationTimestamp", "")), str(lease["metadata"]["name"])


def _is_alive(lease: Manifest, spec: dict[str, Any], now: datetime) -> bool:
    """Return whether a Lease is one of an operator that was renewed in time."""
    if label_of(lease, MANAGED_BY) != FIELD_MANAGER or not spec.get("holderIdentity"):
        return False
    try:
        renewed = datetime.fromisoformat(str(spec.get("renewTime")))
        return now < renewed + timedelta(seconds=float(spec.get("leaseDurationSeconds") or 0)) + CLOCKS
    except (TypeError, ValueError):
        return False


def _common(scope: Sequence[str], lease: Manifest) -> str | None:
    """Return in which namespaces both act, in words; None if in none, or if the Lease does not say where its operator acts."""
    text = (lease["metadata"].get("annotations") or {}).get(SCOPE)
    if text is None:
        return None
    theirs = set(text.split(",")) - {""}
    if not scope and not theirs:
        return "in all namespaces"
    both = theirs & set(scope) if scope and theirs else theirs or set(scope)
    return f"in namespace {', '.join(sorted(both))}" if both else None
