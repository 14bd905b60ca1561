"""Runs HTTP servers in a pod: starts them, and stops them without cutting off a request."""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

log = logging.getLogger(__name__)

#: Seconds for which a stopping server still accepts connections, until its peers know that it stops.
LAME_DUCK_SECONDS = 1.0
#: Seconds that requests in flight get to finish after that; the pod's grace period is longer.
DRAIN_SECONDS = 50.0


@dataclass(frozen=True)
class Listener:
    """A web application and the port that it listens on."""

    app: web.Application
    port: int


async def run_until_stopped(
    listeners: Sequence[Listener],
    *,
    host: str,
    on_stop: Callable[[], None],
    drain_seconds: float = DRAIN_SECONDS,
) -> None:
    """Serve until SIGTERM or SIGINT; then accept no new connections and finish the requests in flight.

    The listeners stop one after the other, in their order: each goes on answering until those before it have finished
    their requests. `on_stop` is called at the signal: it makes the readiness probe fail.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    runners = [await _start(listener, host, drain_seconds) for listener in listeners]
    await stopping.wait()
    log.info("stopping: requests in flight get up to %g s to finish", drain_seconds)
    on_stop()
    await asyncio.sleep(LAME_DUCK_SECONDS)
    for runner in runners:
        await runner.cleanup()


async def _start(listener: Listener, host: str, drain_seconds: float) -> web.AppRunner:
    runner = web.AppRunner(
        listener.app, handler_cancellation=True, shutdown_timeout=drain_seconds, access_log=None
    )
    await runner.setup()
    await web.TCPSite(runner, host, listener.port, backlog=512).start()
    log.info("listening on %s:%d", host, listener.port)
    return runner
