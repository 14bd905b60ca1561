"""However a request ends, the metrics and the log say so, and its id leads from the client to the server."""

import asyncio
import json
import logging

import pytest
from aiohttp import web

from moe_formats.observations import ExpertCounts, Observations

ASK = {"model": "code", "prompt": "a secret"}
STREAM = ASK | {"stream": True}


def counted(code, value="1.0"):
    return f'moe_gateway_requests_total{{code="{code}",expert="code",strategy="Pinned"}} {value}'


async def test_a_stream_that_breaks_off_does_not_count_as_good(world):
    expert = await world.expert("code")

    async def begin_and_drop(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices":[]}\n\n')
        request.transport.close()
        return response

    expert.trouble = begin_and_drop
    gateway = await world.gateway(world.policy(expert))
    async with gateway.post("/v1/completions", STREAM) as response:
        await response.read()
    await gateway.until(counted(502))


async def test_a_stream_that_stalls_does_not_count_as_good(world):
    expert = await world.expert("code", hold=asyncio.Event())
    gateway = await world.gateway(world.policy(expert, limits={"timeoutSeconds": 0.2}))
    async with gateway.post("/v1/completions", STREAM) as response:
        await response.read()
    await gateway.until(counted(504))


async def test_a_client_that_leaves_is_counted_before_and_after_the_answer_began(world):
    expert = await world.expert("code", hold=asyncio.Event())
    gateway = await world.gateway(world.policy(expert))
    asking = asyncio.create_task(gateway.answer("/v1/completions", ASK))
    await expert.begun.wait()
    asking.cancel()
    await gateway.until('moe_gateway_rejected_total{code="client_left"} 1.0')
    async with gateway.post("/v1/completions", STREAM) as response:
        assert b"one" in await response.content.readline()
        response.close()
    await gateway.until(counted(499))


async def test_a_whole_answer_and_a_whole_stream_count_as_good(world):
    gateway = await world.gateway(world.policy(await world.expert("code")))
    for body in (ASK, STREAM):
        async with gateway.post("/v1/completions", body) as response:
            await response.read()
    await gateway.until(counted(200, "2.0"))


async def test_each_request_has_a_line_in_the_log_without_its_text(world, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    keys = tmp_path / "keys"
    keys.write_text("sesame\n")
    gateway = await world.gateway(world.policy(await world.expert("code")), keys=keys)
    key = {"Authorization": "Bearer sesame"}
    async with gateway.post("/v1/completions", STREAM, headers=key | {"x-request-id": "r-1"}) as response:
        await response.read()
    await gateway.answer("/v1/completions", {"model": "poetry", "prompt": "x"}, headers=key)
    await gateway.answer("/v1/completions%0Aforged", ASK)
    await gateway.until('moe_gateway_rejected_total{code="invalid_api_key"} 1.0')
    good, unknown, refused = (
        json.loads(record.getMessage()) for record in caplog.records if record.name == "moe_gateway.record"
    )
    assert (good["id"], good["expert"], good["revision"]) == ("r-1", "code", "code-1")
    assert (good["outcome"], good["stream"], good["strategy"]) == (200, True, "Pinned")
    assert 0 < good["firstByteSeconds"] <= good["seconds"]
    assert good["caller"] == unknown["caller"] and "caller" not in refused
    assert (unknown["outcome"], unknown["error"]) == (404, "model_not_found")
    assert (refused["outcome"], refused["path"]) == (401, "/v1/completions\nforged")
    assert "secret" not in caplog.text and "sesame" not in caplog.text


async def test_the_id_of_a_request_is_its_clients_and_goes_to_the_server_and_back(world):
    expert = await world.expert("code", words=("secret",))
    seen = []

    async def note(request):
        seen.append(request.headers.get("x-request-id"))

    expert.trouble = note
    gateway = await world.gateway(world.policy(expert))
    headers = {"x-request-id": "client-7"}
    for model in ("code", "pool"):
        _, answered, _ = await gateway.answer("/v1/completions", ASK | {"model": model}, headers=headers)
        assert answered["x-request-id"] == "client-7"
    assert set(seen) == {"client-7"} and len(seen) == 3
    _, unknown, _ = await gateway.answer("/v1/completions", ASK | {"model": "?"}, headers=headers)
    assert unknown["x-request-id"] == "client-7"


@pytest.mark.parametrize("offered", ["", "x" * 200, "a b", '"}'])
async def test_an_id_that_cannot_be_logged_is_replaced(world, offered):
    gateway = await world.gateway(world.policy(await world.expert("code")))
    _, headers, _ = await gateway.answer("/v1/completions", ASK, headers={"x-request-id": offered})
    assert headers["x-request-id"] != offered and len(headers["x-request-id"]) == 32


@pytest.mark.parametrize("strategy", ["Posterior", "Distilled"])
async def test_a_request_that_ends_servers_reaches_three_of_them_whatever_they_are_of(
    world, strategy, monkeypatch
):
    """The fallback's servers and those that only score the prompt are ended by it as well."""
    monkeypatch.setattr("moe_gateway.proxy.PATIENCE_BEFORE_FALLBACK_SECONDS", 5)
    experts = [await world.expert(name) for name in ("code", "general")]
    reached = []

    async def drop(request):
        reached.append(request.path)
        request.transport.close()

    for expert in experts:
        expert.trouble = drop
    policy = world.policy(*experts, strategy=strategy, fallback="general")
    gateway = await world.gateway(policy)
    for model in ("pool", "code"):
        reached.clear()
        status, headers, answer = await gateway.answer("/v1/completions", ASK | {"model": model})
        assert (status, answer["error"]["code"]) == (503, "expert_unreachable")
        assert "dropped the request" in answer["error"]["message"]
        assert (headers["x-should-retry"], headers.get("Retry-After")) == ("false", None)
        assert len(reached) == 3


async def test_a_fallback_does_not_reach_three_more(world, monkeypatch):
    code, general = await world.expert("code", words=("secret",)), await world.expert("general")
    reached = []

    async def drop_unless_it_scores(request):
        if not (await request.json()).get("echo"):
            reached.append(request.path)
            request.transport.close()

    code.trouble = general.trouble = drop_unless_it_scores
    gateway = await world.gateway(world.policy(code, general, fallback="general"))
    status, _, _ = await gateway.answer("/v1/completions", ASK | {"model": "pool"})
    assert (status, len(reached)) == (503, 3)


async def test_a_server_that_is_not_ready_is_asked_again_less_and_less_often(world, monkeypatch):
    monkeypatch.setattr("moe_gateway.proxy.PATIENCE_SECONDS", 1.5)
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    expert = await world.expert("code")

    async def not_ready(request):
        return web.json_response({}, status=503)

    expert.trouble = not_ready
    gateway = await world.gateway(world.policy(expert))
    assert (await gateway.answer("/v1/completions", ASK))[0] == 503
    assert len(expert.requests) <= 5  # at 0, 0.1, 0.3, 0.7 and 1.5 s; it was sixteen times


async def test_the_server_is_told_how_many_tokens_it_may_generate_at_most(world):
    expert = await world.expert("code")
    seen = []

    async def note(request):
        seen.append(request.headers.get("x-moe-max-tokens"))

    expert.trouble = note
    gateway = await world.gateway(world.policy(expert, limits={"maxTokens": 5}))
    await gateway.answer(
        "/v1/chat/completions", {"model": "code", "messages": [{"role": "user", "content": "x"}]}
    )
    assert seen == ["5"]


async def test_observations_count_every_request_of_an_expert_however_it_ended(world):
    """Also those that no server answered, which no other count of the Expert has."""
    code, general = await world.expert("code"), await world.expert("general")
    gateway = await world.gateway(world.policy(code, general, strategy="Posterior", fallback="general"))
    await gateway.answer("/v1/completions", ASK | {"model": "code"})
    async with gateway.post("/v1/completions", STREAM | {"model": "code"}) as response:
        await response.read()
    await gateway.answer("/v1/completions", ASK | {"model": "pool"})
    await code.stop()
    await gateway.answer("/v1/completions", ASK | {"model": "code"})
    await gateway.answer("/v1/completions", ASK | {"model": "poetry"})
    async with gateway.client.get(gateway.metrics_url + "/observations") as response:
        counted = Observations.model_validate_json(await response.read()).experts
    routed = "code" if counted["code"].confidence != (0,) * 10 else "general"
    assert counted["code"].failed == 1
    assert counted["code"].answered + counted.get("general", ExpertCounts()).answered == 3
    assert sum(counted["code"].first_token_seconds) == 1
    assert sum(counted[routed].confidence) == 1
    assert 0 < counted["code"].in_flight_seconds < 60
    async with gateway.client.get(gateway.url + "/observations") as response:
        assert response.status == 404
