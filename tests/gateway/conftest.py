"""A gateway and expert servers in one process, speaking real HTTP over loopback."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from moe_formats.format import digest_of
from moe_formats.routing_policy import RoutedExpert, RoutingPolicy
from moe_gateway.app import Gateway, open_gateway
from moe_gateway.balancer import Balancer
from moe_web.listener import Listener

DIGEST = "sha256:" + "0" * 64


@dataclass
class StubExpert:
    """A server that answers like an expert server, as the test wants it.

    It codes its own `words` well and everything else badly. `hold` keeps answers back after their first
    piece until it is set; `trouble` does something else with the next requests.
    """

    name: str
    revision: str
    words: tuple[str, ...] = ()
    port: int = 0
    address: str = "127.0.0.1"
    hold: asyncio.Event | None = None
    trouble: Callable[[web.Request], Any] | None = None
    ready: bool = True
    requests: list[dict[str, Any]] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: int = 0
    runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/{kind:.*}", self._answer)
        self.runner = web.AppRunner(app, shutdown_timeout=5, handler_cancellation=True)
        await self.runner.setup()
        await web.TCPSite(self.runner, self.address, self.port).start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        """Finish what is in flight and go."""
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    def routed(self) -> RoutedExpert:
        url = f"http://{self.address}:{self.port}"
        return RoutedExpert(
            name=self.name,
            domain=self.name,
            revision=self.revision,
            digest=DIGEST,
            url=url,
            ready=None if self.ready else False,
        )

    @property
    def served(self) -> list[dict[str, Any]]:
        """Requests for text, without those that only score."""
        return [body for body in self.requests if not body.get("echo")]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.begun.set()
        if self.trouble is not None:
            troubled = await self.trouble(request)
            if troubled is not None:
                return troubled
        try:
            if body.get("echo"):
                return self._score(body["prompt"])
            if body.get("stream"):
                return await self._stream(request)
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        answer = {"model": self.name, "choices": [{"index": 0, "text": self.revision}]}
        return web.json_response(answer, headers={"x-moe-revision": self.revision})

    def _score(self, prompt: str) -> web.Response:
        bits = 1.0 if any(word in prompt for word in self.words) else 4.0
        logprobs = [None] + [-bits * 0.6931] * (len(prompt.encode()) - 1)
        answer = {"choices": [{"index": 0, "text": prompt, "logprobs": {"token_logprobs": logprobs}}]}
        return web.json_response(answer, headers={"x-moe-revision": self.revision})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", "x-moe-revision": self.revision}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for piece in ("one", "two"):
            await response.write(f'data: {{"choices":[{{"text":"{piece}"}}]}}\n\n'.encode())
            if self.hold is not None:
                await self.hold.wait()
        await response.write(b"data: [DONE]\n\n")
        return response


@dataclass
class RunningGateway:
    """A gateway and a client of it."""

    gateway: Gateway
    url: str
    metrics_url: str
    client: aiohttp.ClientSession
    policy_path: Path
    listener: Listener

    def write(self, policy: RoutingPolicy | str) -> None:
        """Replace the policy at once, as a mounted ConfigMap is."""
        text = policy if isinstance(policy, str) else policy.to_json()
        fresh = self.policy_path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.policy_path)

    async def wait_for_policy(self, digest: str) -> None:
        async with asyncio.timeout(10):
            while (await self.policy())["digest"] != digest:
                await asyncio.sleep(0.02)

    async def get(self, path: str, **options: Any) -> Any:
        async with self.client.get(self.url + path, **options) as response:
            return await response.json()

    async def until(self, line: str) -> None:
        """Wait until the metrics have a line."""
        async with asyncio.timeout(10):
            while line not in (await self.metrics()).splitlines():
                await asyncio.sleep(0.01)

    def post(self, path: str, body: Any, **options: Any) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body)
        return self.client.post(self.url + path, data=data, **options)

    async def answer(self, path: str, body: Any, **options: Any) -> tuple[int, Any, Any]:
        """Return status, headers and JSON of an answer."""
        async with self.post(path, body, **options) as response:
            return response.status, response.headers, await response.json()

    async def policy(self) -> Any:
        async with self.client.get(self.metrics_url + "/policy") as response:
            return await response.json()

    async def metrics(self) -> str:
        async with self.client.get(self.metrics_url + "/metrics") as response:
            return await response.text()


class World:
    """Starts experts and gateways, and stops them at the end of the test."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self.folder = folder
        self._stack = stack

    async def expert(self, name: str, revision: str = "", **options: Any) -> StubExpert:
        expert = StubExpert(name, revision or f"{name}-1", **options)
        await expert.start()
        self._stack.push_async_callback(expert.stop)
        return expert

    def policy(self, *experts: StubExpert, **options: Any) -> RoutingPolicy:
        routed = tuple(expert.routed() for expert in experts)
        return RoutingPolicy(**{"pool": "pool", "strategy": "Posterior", "experts": routed} | options)

    async def gateway(
        self, policy: RoutingPolicy | None, *, keys: Path | None = None, balancer: Balancer | None = None
    ) -> RunningGateway:
        path = self.folder / "policy.json"
        if policy is not None:
            path.write_text(policy.to_json())
        gateway = await self._stack.enter_async_context(open_gateway(path, self.folder, keys, balancer))
        listeners = [await self._listen(routes) for routes in (gateway.routes(), gateway.metrics_routes())]
        urls = [f"http://127.0.0.1:{listener.port}" for listener in listeners]
        client = await self._stack.enter_async_context(aiohttp.ClientSession())
        return RunningGateway(gateway, *urls, client, path, listeners[0])

    async def _listen(self, routes: list[web.AbstractRouteDef]) -> Listener:
        app = web.Application()
        app.add_routes(routes)
        listener = Listener(app, host="127.0.0.1", port=0)
        await listener.start()
        self._stack.push_async_callback(listener.stop, 1)
        return listener


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        yield World(tmp_path, stack)


@pytest.fixture
def free_port() -> int:
    return _free_port()


@pytest.fixture
def another_port(free_port: int) -> int:
    return next(port for port in iter(_free_port, None) if port != free_port)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def digest() -> Callable[[RoutingPolicy], str]:
    return lambda policy: digest_of(policy.to_json().encode())
