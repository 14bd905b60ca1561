"""Runs an HTTP server in a pod: starts it, and stops it without cutting off a request."""

import asyncio
import logging
import signal
from collections.abc import Callable

from aiohttp import web

log = logging.getLogger(__name__)

#: Seconds for which a stopping server still accepts connections, until its peers know that it stops.
LAME_DUCK_SECONDS = 1.0
#: Seconds that requests in flight get to finish after that; the pod's grace period is longer.
DRAIN_SECONDS = 50.0


async def run_until_stopped(
    app: web.Application,
    host: str,
    port: int,
    *,
    on_stop: Callable[[], None],
    drain_seconds: float = DRAIN_SECONDS,
) -> None:
    """Serve until SIGTERM or SIGINT; then accept no new connections and finish the requests in flight.

    `on_stop` is called at the signal: it makes the readiness probe fail.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=drain_seconds, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port, backlog=512).start()
    log.info("listening on %s:%d", host, port)
    await stopping.wait()
    log.info("stopping: requests in flight get up to %g s to finish", drain_seconds)
    on_stop()
    await asyncio.sleep(LAME_DUCK_SECONDS)
    await runner.cleanup()
