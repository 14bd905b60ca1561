"""Clients that send or read so slowly that they would keep a server from answering others, over real sockets."""

import asyncio
import contextlib

from aiohttp import web

ASK = {"model": "code", "prompt": "x"}
HEAD = (
    "POST /v1/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
    "Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
)


@contextlib.asynccontextmanager
async def connected(gateway):
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def begin(writer, reader, length=100_000):
    """Send a request without its body, and return once the gateway is waiting for that."""
    writer.write(HEAD.format(length=length).encode())
    assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    writer.write(b"{")


async def test_clients_that_send_slowly_keep_out_nobody(world):
    gateway = await world.gateway(world.policy(await world.expert("code"), limits={"maxConcurrency": 3}))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(6):
            reader, writer = await stack.enter_async_context(connected(gateway))
            await begin(writer, reader)
        assert (await gateway.answer("/v1/completions", ASK))[0] == 200


async def test_bodies_that_arrive_at_once_have_a_limit_together(world, monkeypatch):
    monkeypatch.setattr("moe_web.bodies.ARRIVING_BYTES", 10_000)
    limits = {"maxBodyBytes": 2000}
    gateway = await world.gateway(world.policy(await world.expert("code"), limits=limits))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(6):  # Five of them have 9,000 bytes together.
            reader, writer = await stack.enter_async_context(connected(gateway))
            await begin(writer, reader, 1900)
            writer.write(b" " * 1800)
            await writer.drain()
        await gateway.until('moe_gateway_rejected_total{code="too_many_requests"} 1.0')
    await gateway.until('moe_gateway_rejected_total{code="client_left"} 5.0')
    assert (await gateway.answer("/v1/completions", ASK))[0] == 200


async def test_a_body_that_takes_too_long_is_a_408(world, monkeypatch):
    monkeypatch.setattr("moe_web.bodies.BODY_SECONDS", 0.1)
    gateway = await world.gateway(world.policy(await world.expert("code")))
    async with connected(gateway) as (reader, writer):
        await begin(writer, reader)
        assert await reader.readline() == b"\r\n"
        assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"


async def test_a_connection_whose_headers_never_end_is_closed(world, monkeypatch):
    monkeypatch.setattr("moe_web.listener.HEADERS_SECONDS", 0.1)
    gateway = await world.gateway(world.policy(await world.expert("code")))
    async with asyncio.timeout(10):
        for begun in (b"", b"GET /v1/models HTTP/1.1\r\nHost: g\r\nX-Slow: "):
            async with connected(gateway) as (reader, writer):
                writer.write(begun)
                assert await reader.read() == b""


async def test_a_second_request_on_a_connection_has_the_same_deadline_and_waiting_for_it_has_none(
    world, monkeypatch
):
    monkeypatch.setattr("moe_web.listener.HEADERS_SECONDS", 0.1)
    hold = asyncio.Event()
    expert = await world.expert("code", hold=hold)
    gateway = await world.gateway(world.policy(expert))
    async with asyncio.timeout(10), connected(gateway) as (reader, writer):
        body = b'{"model": "code", "prompt": "x"}'
        writer.write(HEAD.format(length=len(body)).replace("Expect: 100-continue\r\n", "").encode() + body)
        await expert.begun.wait()
        async with connected(gateway) as (silent, _):
            assert await silent.read() == b""  # The deadline has passed.
        hold.set()
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")
        )
        await reader.readexactly(length)
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: ")
        assert await reader.read() == b""


async def test_a_client_that_does_not_read_its_answer_loses_its_place(world, monkeypatch):
    monkeypatch.setattr("moe_web.listener.WRITE_SECONDS", 0.2)
    expert = await world.expert("code")
    megabyte = b'data: {"text":"' + b"x" * (1 << 20) + b'"}\n\n'

    async def answer_without_end(request):
        body = expert.requests[-1]
        if not body.get("stream"):
            return web.Response(body=megabyte * 32)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(megabyte)
        except (asyncio.CancelledError, ConnectionResetError):
            expert.cancelled += 1
            raise

    expert.trouble = answer_without_end
    gateway = await world.gateway(world.policy(expert))
    async with asyncio.timeout(20):
        for stream in ("true", "false"):
            expert.begun.clear()
            async with connected(gateway) as (_, writer):
                writer.transport.pause_reading()
                body = b'{"model": "code", "prompt": "x", "stream": %s}' % stream.encode()
                writer.write(
                    HEAD.format(length=len(body)).replace("Expect: 100-continue\r\n", "").encode() + body
                )
                await expert.begun.wait()
                await gateway.until("moe_gateway_in_flight 0.0")
        while not expert.cancelled:
            await asyncio.sleep(0.01)
