"""The agent's HTTPS port for the API server: what `kubectl logs` needs, and a health check."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Protocol

from aiohttp import web

from moe_local.agent import logs
from moe_local.agent.config import AgentConfig
from moe_local.agent.processes import attempts

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LogSource(Protocol):
    """Finds the container that a request means."""

    def container_folder(self, namespace: str, pod: str, container: str) -> Path | None:
        """Return the folder of its attempts; None if this node has no such container."""

    def is_running(self, namespace: str, pod: str, container: str, attempt: int) -> bool:
        """Return whether that attempt still runs, so that more lines may follow."""


@dataclass(frozen=True)
class LogOptions:
    """The query of a log request. Raises ValueError naming the parameter that is wrong."""

    follow: bool
    timestamps: bool
    previous: bool
    tail: int | None
    since: str
    most_bytes: int | None

    @classmethod
    def parse(cls, request: web.Request, now: datetime) -> LogOptions:
        """Parse the query of a request."""
        query = request.query
        since = query.get("sinceTime", "")
        if since:
            since = _stamp(datetime.fromisoformat(since))
        elif query.get("sinceSeconds"):
            since = _stamp(now - timedelta(seconds=int(query["sinceSeconds"])))
        return cls(
            follow=query.get("follow") in ("true", "1"),
            timestamps=query.get("timestamps") in ("true", "1"),
            previous=query.get("previous") in ("true", "1"),
            tail=int(query["tailLines"]) if query.get("tailLines") else None,
            since=since,
            most_bytes=int(query["limitBytes"]) if query.get("limitBytes") else None,
        )


def _stamp(moment: datetime) -> str:
    """Return a time in the format of the log, so that both can be compared as text."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def chosen(lines: Iterable[logs.Line], options: LogOptions) -> Iterator[logs.Line]:
    """Return the lines that were asked for, of the log as it is now."""
    recent = (line for line in lines if line.time >= options.since)
    if options.tail is None:
        return recent
    kept = list(recent)
    return iter(kept[len(kept) - options.tail :] if options.tail < len(kept) else kept)


class LogServer:
    """Routes and TLS of the port."""

    def __init__(self, config: AgentConfig, source: LogSource) -> None:
        self._config = config
        self._source = source
        self._runner: web.AppRunner | None = None

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._config.serving_certificate, self._config.serving_key)
        context.load_verify_locations(self._config.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    async def start(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        application = web.Application(middlewares=[self._authorize])
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        address = str(self._config.listen_address)
        await web.TCPSite(self._runner, address, self._config.listen_port, ssl_context=self._tls()).start()

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the name in the client's certificate, if names are configured; TLS has checked the certificate itself."""
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        names = {
            value
            for part in (certificate or {}).get("subject", ())
            for key, value in part
            if key == "commonName"
        }
        if not certificate or (self._config.client_names and not names & set(self._config.client_names)):
            raise web.HTTPForbidden(text="this port answers only the API server")
        return await handler(request)

    async def _healthz(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        namespace, pod, container = (request.match_info[part] for part in ("namespace", "pod", "container"))
        try:
            options = LogOptions.parse(request, datetime.now(UTC))
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"invalid parameter: {error}") from None
        folder = self._source.container_folder(namespace, pod, container)
        numbers = attempts(folder) if folder else []
        if options.previous:
            numbers = numbers[:-1]
        if folder is None:
            raise web.HTTPNotFound(text=f'container "{container}" in pod "{pod}" is not on this node')
        if not numbers:
            what = "has not run before" if options.previous else "is waiting to start"
            raise web.HTTPBadRequest(text=f'container "{container}" in pod "{pod}" {what}')
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await self._send(
            response, folder / str(numbers[-1]), options, (namespace, pod, container, numbers[-1])
        )
        await response.write_eof()
        return response

    async def _send(
        self, response: web.StreamResponse, folder: Path, options: LogOptions, who: tuple[str, str, str, int]
    ) -> None:
        left = options.most_bytes
        follower = logs.Follower(folder) if options.follow else None
        lines = chain(_old(folder), follower.new_lines()) if follower else logs.read(folder)
        try:
            for line in chosen(lines, options):
                left = await _write(response, line, options, left)
            while follower:
                running = self._source.is_running(*who)
                for line in follower.new_lines():
                    left = await _write(response, line, options, left)
                if not running or left == 0:
                    return
                await logs.pause()
        finally:
            if follower:
                follower.close()


def _old(folder: Path) -> Iterator[logs.Line]:
    return logs.read_file(folder / "log.old")


async def _write(
    response: web.StreamResponse, line: logs.Line, options: LogOptions, left: int | None
) -> int | None:
    """Send one line, as far as the limit allows; return what is left of the limit."""
    data = line.rendered(timestamps=options.timestamps)
    if left is not None:
        data = data[:left]
        left -= len(data)
    if data:
        await response.write(data)
    return left
