"""The kopf handlers: one per watched kind, which passes every event on to the cache.

There is nothing else: no handler per kind of change, no timer, no finalizer, no annotation. Which objects a change
concerns is decided in ``cluster/triggers.py``, and what is done about it in ``planner/``.
"""

from collections.abc import Callable
from typing import Any

import kopf

from moe_operator.cluster.api_client import PAGE
from moe_operator.cluster.connection import Connection
from moe_operator.cluster.resources import WATCHED, Resource

#: Takes the kind, the object, and whether the object was deleted.
Observe = Callable[[Resource, dict[str, Any], bool], None]


def registry_of(
    connection: Connection, observe: Observe, on_stop: Callable[[], None]
) -> kopf.OperatorRegistry:
    """Return the handlers: login, one event handler for each kind in ``WATCHED``, and ``on_stop`` for the end of kopf."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_login(connection))
    kopf.on.cleanup(registry=registry)(_cleanup(on_stop))
    for resource in WATCHED:
        watch = kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)
        watch(_event(resource, observe))
    return registry


def settings_of() -> kopf.OperatorSettings:
    """Return kopf's settings: label selectors on the server's side, bounded waits, no events posted, no scan for kinds."""
    settings = kopf.OperatorSettings()
    for resource in WATCHED:
        if resource.selector:
            key = (resource.group, resource.version, resource.plural)
            settings.watching.label_selectors[key] = resource.selector
    settings.watching.chunk_size = PAGE
    # kopf keeps a task and a queue for each object that it has seen an event of, for so many seconds.
    settings.queueing.idle_timeout = 0.1
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    return settings


def _login(connection: Connection) -> Callable[..., kopf.ConnectionInfo]:
    def login(**_: Any) -> kopf.ConnectionInfo:
        return connection.for_kopf()

    return login


def _cleanup(on_stop: Callable[[], None]) -> Callable[..., Any]:
    async def cleanup(**_: Any) -> None:
        on_stop()

    return cleanup


def _event(resource: Resource, observe: Observe) -> Callable[..., Any]:
    async def event(event: Any, **_: Any) -> None:
        observe(resource, dict(event["object"]), event["type"] == "DELETED")

    event.__qualname__ = f"{resource.plural}_event"
    return event
