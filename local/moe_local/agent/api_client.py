"""The agent's view of the API server: JSON over one pool of TLS connections, and watches that never miss a change."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import aiohttp
import yaml

JSON = dict[str, Any]
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
WATCH_SECONDS = 300
RECONNECT_SECONDS = 0.5
MOST_RECONNECT_SECONDS = 5.0
REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=20)
SILENCE_SECONDS = 150
"""Seconds. A watch sends a bookmark about once a minute; one that sends nothing for this long is renewed."""
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_SECONDS)


class APIError(Exception):
    """The API server answered with an error, or (status 0) could not be reached."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotFoundError(APIError):
    """The object does not exist."""


class ConflictError(APIError):
    """The object exists already, or is not the one that the request meant."""


@dataclass(frozen=True)
class Event:
    """One step of a watch. `listed` has the whole collection: what is not in it does not exist."""

    kind: Literal["listed", "changed", "deleted"]
    objects: list[JSON]


def _error(status: int, text: str) -> APIError:
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text[:300]
    kind = {404: NotFoundError, 409: ConflictError}.get(status, APIError)
    return kind(status, message)


def read_kubeconfig(path: Path) -> tuple[str, ssl.SSLContext]:
    """Return server and TLS context of the current context; raises ValueError if it has no client certificate."""
    config = yaml.safe_load(path.read_text())
    current = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
    cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == current["cluster"])
    user = next(u["user"] for u in config["users"] if u["name"] == current["user"])
    try:
        context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        context.load_cert_chain(user["client-certificate"], user["client-key"])
    except KeyError as missing:
        raise ValueError(f"{path}: {missing} is not there: the agent reads certificates from files") from None
    return str(cluster["server"]), context


class APIClient:
    """Sends requests as one user. An async context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        self.server, self._tls = read_kubeconfig(kubeconfig)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> APIClient:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=64, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(self.server, connector=connector, timeout=REQUEST_TIMEOUT)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """Return the open session; raises RuntimeError outside of the context."""
        if self._session is None:
            raise RuntimeError("APIClient is used outside of its context")
        return self._session

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = "application/json",
    ) -> JSON:
        """Send one request and return the answer as JSON. Raises APIError or a subclass of it."""
        data = None if body is None else json.dumps(body).encode()
        try:
            async with self.session.request(
                method, path, data=data, headers={"Content-Type": content_type}
            ) as response:
                text = await response.text()
                if response.status >= 300:
                    raise _error(response.status, text)
                result: JSON = json.loads(text)
                return result
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise APIError(0, f"{method} {path}: {error or type(error).__name__}") from error

    async def get(self, path: str) -> JSON:
        """Return one object."""
        return await self.request("GET", path)

    async def create(self, path: str, body: Mapping[str, Any]) -> JSON:
        """Create an object in a collection and return it."""
        return await self.request("POST", path, body)

    async def patch(self, path: str, body: Mapping[str, Any]) -> JSON:
        """Apply a strategic merge patch and return the object."""
        return await self.request("PATCH", path, body, content_type=STRATEGIC_MERGE)

    async def delete(self, path: str, *, uid: str, grace: int | None = None) -> None:
        """Delete the object with this uid; nothing happens if it is gone or another one has its name by now."""
        options: JSON = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self.request("DELETE", path, options)
        except (NotFoundError, ConflictError):
            return

    async def watch(self, path: str, **selectors: str) -> AsyncIterator[Event]:
        """List a collection, then watch it without end; a gap in the watch (410) lists it again. Never raises APIError."""
        version = ""
        pause = RECONNECT_SECONDS
        while True:
            try:
                if not version:
                    listed = await self.request("GET", path + _query(selectors))
                    version = listed["metadata"]["resourceVersion"]
                    yield Event("listed", listed.get("items") or [])
                async for event, reached in self._follow(path, selectors, version):
                    version, pause = reached, RECONNECT_SECONDS
                    if event:
                        yield event
            except APIError as error:
                if error.status in (410, 400):
                    version = ""
                await asyncio.sleep(pause)
                pause = min(pause * 2, MOST_RECONNECT_SECONDS)

    async def _follow(
        self, path: str, selectors: Mapping[str, str], version: str
    ) -> AsyncIterator[tuple[Event | None, str]]:
        """Watch once; yield each change with the version to continue from. Raises APIError, 410 if that is too old."""
        options = {
            **selectors,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        try:
            async with self.session.get(path + _query(options), timeout=WATCH_TIMEOUT) as response:
                if response.status >= 300:
                    raise _error(response.status, await response.text())
                async for line in _lines(response.content):
                    change = json.loads(line)
                    item = change["object"]
                    if change["type"] == "ERROR":
                        raise APIError(int(item.get("code", 0)), str(item.get("message")))
                    event = None
                    if change["type"] != "BOOKMARK":
                        event = Event("deleted" if change["type"] == "DELETED" else "changed", [item])
                    yield event, item["metadata"]["resourceVersion"]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise APIError(0, f"watch {path}: {error or type(error).__name__}") from error


def _query(options: Mapping[str, str]) -> str:
    return "?" + urlencode(options) if options else ""


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield lines of any length: StreamReader.readline fails above 64 KiB, which a Secret may exceed."""
    rest = b""
    async for chunk in stream.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
