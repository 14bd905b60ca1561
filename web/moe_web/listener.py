"""A port of an HTTP server: it stops without cutting off a request, and no slow client keeps it busy.

aiohttp ends a server by waiting for its requests twice, each time for the whole timeout, so a pod would be killed before
its streams are told why they end. Here the deadline is kept, and the requests that are left at it get to say so:

    SIGTERM    readiness fails; answers carry `Connection: close`, so that clients open no more requests on old connections
    + 1 s      no new connections; idle ones are closed; requests in flight go on
    deadline   requests in flight are cancelled: streams end with an error event, other requests with status 503
    + 2 s      everything is closed

Deadlines for clients: HEADERS_SECONDS for the headers of a request, WRITE_SECONDS for taking a piece of an answer. The
deadline for bodies is in bodies.py.
"""

import asyncio
import logging
import re
import signal
import uuid
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

log = logging.getLogger(__name__)

#: Seconds for which a stopping server still accepts connections, until its peers know that it stops.
LAME_DUCK_SECONDS = 1.0
#: Seconds that cancelled requests get to say why they end.
LAST_WORDS_SECONDS = 2.0
#: Seconds within which the headers of a request must have arrived.
HEADERS_SECONDS = 10.0
#: Seconds that a client may take to read enough of an answer that more can be sent.
WRITE_SECONDS = 30.0
#: Seconds after which a connection is closed that had a request and is idle: longer than load balancers keep theirs, or
#: they would send requests on connections that are just being closed.
IDLE_SECONDS = 3630.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: The id of a request, which its answer, its line in the log and the requests made for it have as `x-request-id`.
REQUEST_ID = web.RequestKey("request_id", str)

#: Headers that the answer of a request gets besides its own.
ANSWER_HEADERS = web.RequestKey("answer_headers", dict[str, str])


class ClientTooSlow(ConnectionResetError):
    """The client did not read its answer in time, so its connection was closed."""


class Listener:
    """A web application on a port."""

    def __init__(self, app: web.Application, *, host: str, port: int) -> None:
        """Listen with `app` on `host` and `port`; port 0 is any free one."""
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        self._host, self._port = host, port
        self._server: asyncio.Server | None = None
        self._in_flight: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = self._closing = self._over = False

        @web.middleware
        async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._handle(request, handler)

        app.middlewares.insert(0, handle)
        app.on_response_prepare.append(self._prepare)

    async def start(self) -> None:
        """Accept connections."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, self._host, self._port, backlog=512)
        self._port = self._server.sockets[0].getsockname()[1]
        log.info("listening on %s:%d", self._host, self._port)

    @property
    def port(self) -> int:
        """Return the port, once it has been started."""
        return self._port

    def announce(self) -> None:
        """Tell clients with every answer from now on to open no more requests on their connections."""
        self._stopping = True

    async def stop(self, drain_seconds: float) -> None:
        """Accept no more connections, and give the requests in flight so many seconds to finish."""
        self._stopping = self._closing = True
        if self._server is not None:
            self._server.close()
        await asyncio.sleep(0)  # Requests that have just arrived begin.
        for connection in self._runner.server.connections if self._runner.server is not None else ():
            if isinstance(connection, _Connection) and not connection.busy:
                connection.close()
        if not await self._finished(drain_seconds):
            log.warning("%d requests are cut off after %g s", len(self._in_flight), drain_seconds)
            self._over = True
            for task in self._in_flight:
                task.cancel()
            await self._finished(LAST_WORDS_SECONDS)
        await self._runner.cleanup()

    async def _finished(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _connection(self) -> "_Connection":
        server = self._runner.server
        assert server is not None, "connections come after the start"
        return _Connection(
            server, loop=asyncio.get_running_loop(), access_log=None, keepalive_timeout=IDLE_SECONDS
        )

    async def _handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection, task = request.protocol, asyncio.current_task()
        assert isinstance(connection, _Connection) and task is not None
        connection.request_begins()
        self._in_flight.add(task)
        self._idle.clear()
        request[REQUEST_ID] = _request_id(request.headers.get("x-request-id"))
        request[_LISTENER] = self
        try:
            response = await handler(request)
            await _within(request, _send(request, response))
            return response
        finally:
            self._in_flight.discard(task)
            if not self._in_flight:
                self._idle.set()
            connection.request_ends()
            if self._closing:
                connection.close()

    async def _prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["x-request-id"] = request[REQUEST_ID] if REQUEST_ID in request else uuid.uuid4().hex
        response.headers.update(request.get(ANSWER_HEADERS, {}))
        if self._stopping:
            response.headers["Connection"] = "close"
            response.force_close()

    @property
    def is_over(self) -> bool:
        """Return whether the time of the requests in flight is over."""
        return self._over


_LISTENER = web.RequestKey("listener", Listener)


def is_cut_off(request: web.Request) -> bool:
    """Return whether a request was cancelled because the server stops, and not because its client has left."""
    listener = request.get(_LISTENER)
    return listener is not None and listener.is_over


async def write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Write a piece of an answer; raises ClientTooSlow (a ConnectionResetError) if the client does not take it in time."""
    await _within(request, response.write(data))


async def run_until_stopped(
    listeners: Sequence[Listener], *, on_stop: Callable[[], None], drain_seconds: float
) -> None:
    """Serve until SIGTERM or SIGINT; then accept no new connections and finish the requests in flight.

    The listeners stop one after the other, in their order: each goes on answering until those before it have finished
    their requests. `on_stop` is called at the signal: it makes the readiness probe fail.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    for listener in listeners:
        await listener.start()
    await stopping.wait()
    log.info("stopping: requests in flight get up to %g s to finish", drain_seconds)
    on_stop()
    for listener in listeners:
        listener.announce()
    await asyncio.sleep(LAME_DUCK_SECONDS)
    for listener in listeners:
        await listener.stop(drain_seconds)


class _Connection(web.RequestHandler):
    """A connection whose requests must have complete headers in time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.busy = 0
        self._deadline: asyncio.TimerHandle | None = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP that is read, or whose handler failed, in the shape of OpenAI's errors."""
        super().handle_error(request, status, exc, message)
        server = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        error = {
            "message": "the server failed; its log says why" if server else _unreadable(exc, message),
            "type": "server_error" if server else "invalid_request_error",
            "param": None,
            "code": None,
        }
        response = web.json_response({"error": error}, status=status)
        response.force_close()
        return response

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.busy and self._deadline is None:
            self._expect_headers()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def request_begins(self) -> None:
        self.busy += 1
        self._clear_deadline()

    def request_ends(self) -> None:
        self.busy -= 1

    def _expect_headers(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(HEADERS_SECONDS, self.force_close)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _unreadable(error: BaseException | None, message: str | None) -> str:
    """Return why a request is not read, without what it had in it, which may be a key."""
    if isinstance(error, ContentEncodingError):
        return "the body is compressed in a way that is not read here. Send it plain, or with gzip or deflate"
    return (message or "it is not HTTP that is read here").partition(": b")[0].splitlines()[0].rstrip(":")


async def _send(request: web.Request, response: web.StreamResponse) -> None:
    await response.prepare(request)
    await response.write_eof()


async def _within(request: web.Request, writing: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await writing
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ClientTooSlow(f"the client did not read its answer within {WRITE_SECONDS:g} s") from None


def _request_id(offered: str | None) -> str:
    """Return the client's own id if it is one that can be logged, or else a new one."""
    return offered if offered and re.fullmatch(r"[A-Za-z0-9._:/+=-]{1,128}", offered) else uuid.uuid4().hex
