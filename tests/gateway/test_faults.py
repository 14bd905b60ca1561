"""Servers that refuse, drop, stop, lie or dawdle."""

import asyncio
import json

from aiohttp import web

from moe_gateway.balancer import Balancer

ASK = {"model": "pool", "prompt": "x"}


def _replicas(*addresses):
    async def resolve(host, port):
        return addresses

    return Balancer(resolve=resolve)


async def _two_replicas(world):
    first = await world.expert("code")
    second = await world.expert("code", address="127.0.0.2", port=first.port)
    gateway = await world.gateway(world.policy(first), balancer=_replicas("127.0.0.1", "127.0.0.2"))
    return gateway, first, second


async def test_replicas_share_the_requests(world):
    gateway, first, second = await _two_replicas(world)
    for _ in range(10):
        assert (await gateway.answer("/v1/completions", ASK | {"model": "code"}))[0] == 200
    assert (len(first.served), len(second.served)) == (5, 5)


async def test_a_replica_that_refuses_connections_is_passed_over(world):
    gateway, first, second = await _two_replicas(world)
    await first.stop()
    for _ in range(6):
        assert (await gateway.answer("/v1/completions", ASK | {"model": "code"}))[0] == 200
    assert len(second.served) == 6


async def test_a_connection_dropped_before_the_first_byte_is_tried_elsewhere(world):
    gateway, first, second = await _two_replicas(world)

    async def drop(request):
        request.transport.close()

    first.trouble = drop
    for stream in (False, True):
        for _ in range(4):
            async with gateway.post("/v1/completions", ASK | {"model": "code", "stream": stream}) as response:
                assert response.status == 200
                await response.read()
    assert len(second.served) == 8


async def test_a_request_that_every_server_drops_is_given_up(world):
    gateway, first, second = await _two_replicas(world)

    async def drop(request):
        request.transport.close()

    first.trouble = second.trouble = drop
    status, _, answer = await gateway.answer("/v1/completions", ASK | {"model": "code"})
    assert (status, answer["error"]["code"]) == (503, "expert_unreachable")
    assert "3 servers of code dropped the request" in answer["error"]["message"]
    assert "://" not in answer["error"]["message"]  # The addresses of pods are for the log only.
    assert len(first.requests) + len(second.requests) == 3


async def test_a_server_that_is_stopping_is_passed_over(world):
    gateway, first, second = await _two_replicas(world)

    async def stopping(request):
        return web.json_response({}, status=503)

    first.trouble = stopping
    for _ in range(4):
        assert (await gateway.answer("/v1/completions", ASK | {"model": "code"}))[0] == 200
    assert len(second.served) == 4


async def test_the_answer_of_another_revision_at_the_address_is_not_used(world):
    gateway, first, _second = await _two_replicas(world)
    first.revision = "poetry-7"
    answers = [(await gateway.answer("/v1/completions", ASK | {"model": "code"}))[2] for _ in range(4)]
    assert {answer["choices"][0]["text"] for answer in answers} == {"code-1"}


async def test_an_expert_nobody_answers_for_is_a_503_that_says_so(world, monkeypatch):
    monkeypatch.setattr("moe_gateway.proxy.PATIENCE_SECONDS", 0.3)
    expert = await world.expert("code")
    gateway = await world.gateway(world.policy(expert))
    await expert.stop()

    status, headers, answer = await gateway.answer("/v1/completions", ASK)

    assert status == 503
    assert headers["Retry-After"] == "1"
    assert answer["error"]["code"] == "expert_unreachable"
    assert "no server of code answered in 0.3 s" in answer["error"]["message"]


async def test_the_fallback_answers_a_routed_request_that_its_expert_cannot_and_never_a_pinned_one(
    world, monkeypatch
):
    monkeypatch.setattr("moe_gateway.proxy.PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("moe_gateway.proxy.PATIENCE_BEFORE_FALLBACK_SECONDS", 0.2)
    code = await world.expert("code", words=("def ",))
    general = await world.expert("general")
    gateway = await world.gateway(world.policy(code, general, fallback="general"))

    async def serve_no_text(request):
        body = code.requests[-1]
        return None if body.get("echo") else web.json_response({}, status=503)

    code.trouble = serve_no_text
    for stream in (False, True):
        ask = {"model": "pool", "prompt": "def f():", "stream": stream}
        async with gateway.post("/v1/completions", ask) as response:
            assert response.status == 200
            assert response.headers["x-moe-expert"] == "general"
            assert response.headers["x-moe-strategy"] == "Fallback"
            assert "x-moe-confidence" not in response.headers
    assert (await gateway.answer("/v1/completions", ask | {"model": "code"}))[0] == 503


async def test_an_answer_that_breaks_off_ends_with_an_error_and_without_done(world):
    expert = await world.expert("code", hold=asyncio.Event())
    gateway = await world.gateway(world.policy(expert))

    async def begin_and_drop(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices":[]}\n\n')
        await asyncio.sleep(0)
        request.transport.close()
        return response

    expert.trouble = begin_and_drop
    async with gateway.post("/v1/completions", ASK | {"model": "code", "stream": True}) as response:
        events = [line for line in (await response.text()).split("\n\n") if line]

    assert response.status == 200
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "expert_lost"
    assert "data: [DONE]" not in events


async def test_half_an_event_is_not_passed_on_if_its_server_dies_inside_of_it(world):
    expert = await world.expert("code")
    gateway = await world.gateway(world.policy(expert))

    async def die_inside_of_an_event(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices":[{"text":"one"}]}\n\ndata: {"choices":[{"te')
        request.transport.close()
        return response

    expert.trouble = die_inside_of_an_event
    async with gateway.post("/v1/completions", ASK | {"model": "code", "stream": True}) as response:
        events = [event for event in (await response.text()).split("\n\n") if event]

    parsed = [json.loads(event.removeprefix("data: ")) for event in events]
    assert parsed[0] == {"choices": [{"text": "one"}]}
    assert [event["error"]["code"] for event in parsed[1:]] == ["expert_lost"]


async def test_events_that_arrive_in_pieces_are_passed_on_unchanged(world):
    expert = await world.expert("code")
    gateway = await world.gateway(world.policy(expert))
    sent = 'data: {"text":"é\\n"}\n\n: a comment\r\n\r\ndata: [DONE]'.encode()

    async def in_pieces(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for at in range(len(sent)):
            await response.write(sent[at : at + 1])
            await asyncio.sleep(0)
        return response

    expert.trouble = in_pieces
    async with gateway.post("/v1/completions", ASK | {"model": "code", "stream": True}) as response:
        assert await response.read() == sent


async def test_a_server_that_sends_nothing_is_a_504(world):
    expert = await world.expert("code", hold=asyncio.Event())
    gateway = await world.gateway(world.policy(expert, limits={"timeoutSeconds": 0.5}))

    status, _, answer = await gateway.answer("/v1/completions", ASK | {"model": "code"})

    assert (status, answer["error"]["code"]) == (504, "timeout")


async def test_a_stream_that_stalls_ends_with_an_error(world):
    expert = await world.expert("code", hold=asyncio.Event())
    gateway = await world.gateway(world.policy(expert, limits={"timeoutSeconds": 0.5}))

    async with gateway.post("/v1/completions", ASK | {"model": "code", "stream": True}) as response:
        text = await response.text()

    assert '"one"' in text and '"code": "timeout"' in text and "[DONE]" not in text


async def test_a_client_that_leaves_frees_the_server(world):
    expert = await world.expert("code", hold=asyncio.Event())
    gateway = await world.gateway(world.policy(expert))
    for stream in (False, True):
        expert.begun.clear()
        asking = asyncio.create_task(
            gateway.answer("/v1/completions", ASK | {"model": "code", "stream": stream})
        )
        await expert.begun.wait()
        asking.cancel()
    async with asyncio.timeout(5):
        while expert.cancelled < 2:
            await asyncio.sleep(0.02)


async def test_an_experts_own_error_is_passed_on(world):
    expert = await world.expert("code")

    async def refuse(request):
        return web.json_response({"error": {"message": "n: Input should be 1", "param": "n"}}, status=400)

    expert.trouble = refuse
    gateway = await world.gateway(world.policy(expert))
    for stream in (False, True):
        ask = ASK | {"model": "code", "stream": stream}
        status, headers, answer = await gateway.answer("/v1/completions", ask)
        assert (status, answer["error"]["param"]) == (400, "n")
        assert headers["x-moe-expert"] == "code"
