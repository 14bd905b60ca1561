"""Writes Kubernetes Events about Experts and pools. Equal events are counted in one object.

Events are only for people: one that cannot be written is lost.
"""

import hashlib
import logging
from datetime import UTC, datetime

import aiohttp

from moe_formats.resources.labels import FIELD_MANAGER
from moe_operator.cluster.api_client import ApiClient, ApiError
from moe_operator.cluster.resources import EVENT, ref_of
from moe_operator.state import Event, Manifest

log = logging.getLogger(__name__)

#: Largest number of characters of a message; the API server refuses longer ones.
LONGEST_MESSAGE = 1024


class EventSender:
    """Writes events; one that cannot be written is logged and forgotten."""

    def __init__(self, api: ApiClient) -> None:
        """Send events through ``api``."""
        self._api = api

    async def send(self, event: Event, about: Manifest) -> None:
        """Write an event about an object; if that fails, log it."""
        manifest = event_manifest(event, about, datetime.now(UTC))
        try:
            try:
                await self._api.create(EVENT, manifest)
            except ApiError as error:
                if not error.already_exists:
                    raise
                await self._count(manifest)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("the event %s about %s was not written: %s", event.reason, ref_of(about).name, error)

    async def _count(self, manifest: Manifest) -> None:
        """Count an event once more in the object that has its name, unless somebody else put another one there."""
        ref = ref_of(manifest)
        live = await self._api.get(EVENT, ref.namespace, ref.name)
        if any(live.get(field) != manifest[field] for field in ("source", "reason", "message")):
            log.warning("the event %s was not written: an Event of that name is not the operator's", ref.name)
            return
        change = {
            "metadata": {"uid": live["metadata"]["uid"]},
            "count": live.get("count", 1) + 1,
            "lastTimestamp": manifest["lastTimestamp"],
        }
        await self._api.merge(EVENT, ref, change)


def event_manifest(event: Event, about: Manifest, now: datetime) -> Manifest:
    """Return the Event object. Equal events about the same object have the same name."""
    metadata = about["metadata"]
    identity = f"{metadata['uid']}/{event.type}/{event.reason}/{event.message}"
    when = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": event.type,
        "reason": str(event.reason),
        "message": event.message[:LONGEST_MESSAGE],
        "source": {"component": FIELD_MANAGER},
        "firstTimestamp": when,
        "lastTimestamp": when,
        "count": 1,
    }
