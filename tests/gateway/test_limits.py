"""What a request may ask, and who may ask."""

import asyncio
import json

import pytest

ASK = {"model": "code", "prompt": "x"}


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"{", None, "not JSON"),
        (b"[]", None, "must be a JSON object"),
        (b"[" * 100_000, None, "not JSON"),
        ({"prompt": "x"}, "model", "model is missing"),
        ({"model": "pool"}, "prompt", "prompt is missing"),
        ({"model": 3, "prompt": "x"}, "model", "model: Input should be a valid string"),
        ({"model": "pool", "prompt": [1, 2]}, "prompt", "token ids cannot be routed"),
        ({"model": "pool", "prompt": "x", "max_tokens": 5000}, "max_tokens", "at most 4096"),
        ({"model": "pool", "prompt": "x", "max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({"model": "pool", "prompt": "x", "stream": "yes"}, "stream", "valid boolean"),
    ],
)
async def test_a_bad_request_is_a_400_that_names_the_field(world, body, param, message):
    gateway = await world.gateway(world.policy(await world.expert("code")))

    status, _, answer = await gateway.answer("/v1/completions", body)

    assert (status, answer["error"]["param"]) == (400, param)
    assert message in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"


async def test_messages_must_be_there_for_a_chat(world):
    gateway = await world.gateway(world.policy(await world.expert("code")))
    for messages in ([], None, [{"content": "x"}]):
        body = {"model": "pool", "messages": messages}
        status, _, answer = await gateway.answer("/v1/chat/completions", body)
        assert (status, answer["error"]["param"]) == (400, "messages")


async def test_an_unknown_endpoint_is_a_404_in_the_same_shape(world):
    gateway = await world.gateway(world.policy(await world.expert("code")))
    status, _, answer = await gateway.answer("/v1/embeddings", {"model": "pool", "input": "x"})
    assert (status, answer["error"]["code"]) == (404, "unknown_endpoint")
    assert answer["error"]["message"] == "there is no POST /v1/embeddings here"


@pytest.mark.parametrize(
    "path", ["/completions", "/v1/v1/completions", "//v1/completions", "/v1/completions/"]
)
async def test_a_wrong_base_url_is_told_the_right_one(world, path):
    gateway = await world.gateway(world.policy(await world.expert("code")))
    status, _, answer = await gateway.answer(path, {"model": "pool", "prompt": "x"})
    assert status == 404
    assert answer["error"]["message"] == (
        f"there is no POST {path} here. It is /v1/completions: the base URL of a client ends with /v1"
    )


async def test_a_wrong_method_is_told_the_right_one(world):
    gateway = await world.gateway(world.policy(await world.expert("code")))
    answer = await gateway.get("/v1/completions")
    assert answer["error"]["message"] == "there is no GET /v1/completions here, only POST"


@pytest.mark.parametrize(
    ("header", "message"),
    [("Content-Encoding: br", "Send it plain, or with gzip or deflate"), ("X: " + "a" * 9000, "8190 bytes")],
)
async def test_what_is_no_http_that_is_read_gets_an_error_in_the_same_shape(world, header, message):
    gateway = await world.gateway(world.policy(await world.expert("code")))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
    writer.write(
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\n{header}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    )
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert b" 400 " in head.splitlines()[0] and b"application/json" in head
    error = json.loads(body)["error"]
    assert error["type"] == "invalid_request_error" and message in error["message"]
    assert "aaaa" not in error["message"]


@pytest.mark.parametrize("path", ["/policy", "/metrics", "/", "/v1", "/policy/", "//metrics", "/debug"])
async def test_the_clients_port_knows_nothing_that_is_for_the_operator(world, tmp_path, path):
    """Whoever may send requests learns neither the policy nor the traffic of others, with a key or without."""
    keys = tmp_path / "keys"
    keys.write_text("sesame\n")
    gateway = await world.gateway(world.policy(await world.expert("code")), keys=keys)
    for headers in ({}, {"Authorization": "Bearer sesame"}):
        async with gateway.client.get(gateway.url + path, headers=headers) as response:
            assert response.status == 404
            error = (await response.json())["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "unknown_endpoint")
        assert error["message"].startswith("there is no GET /")


async def test_the_metrics_port_answers_no_requests_of_clients(world):
    """Prometheus may reach that port: it must not be a way past the API keys."""
    gateway = await world.gateway(world.policy(await world.expert("code")))
    for path in ("/v1/completions", "/v1/route"):
        async with gateway.client.post(gateway.metrics_url + path, json=ASK) as response:
            assert response.status == 404
    assert (await gateway.policy())["pool"] == "pool"
    assert "moe_gateway_requests" in await gateway.metrics()


async def test_a_body_above_the_limit_is_a_413_however_it_comes(world):
    expert = await world.expert("code")
    gateway = await world.gateway(world.policy(expert, limits={"maxBodyBytes": 2000}))

    async def in_chunks():
        for _ in range(10):
            yield b" " * 1000

    for data in (b" " * 10_000, in_chunks()):
        async with gateway.client.post(gateway.url + "/v1/completions", data=data) as response:
            assert response.status == 413
            assert (await response.json())["error"]["code"] == "request_too_large"
    assert expert.requests == []


async def test_more_requests_at_once_than_the_limit_are_a_429(world):
    hold = asyncio.Event()
    expert = await world.expert("code", hold=hold)
    gateway = await world.gateway(world.policy(expert, limits={"maxConcurrency": 2}))
    held = [asyncio.create_task(gateway.answer("/v1/completions", ASK)) for _ in range(2)]
    async with asyncio.timeout(5):
        while len(expert.requests) < 2:
            await asyncio.sleep(0.01)

    status, headers, answer = await gateway.answer("/v1/completions", ASK)

    assert (status, answer["error"]["code"]) == (429, "too_many_requests")
    assert headers["Retry-After"] == "1"
    hold.set()
    assert [outcome[0] for outcome in await asyncio.gather(*held)] == [200, 200]
    assert (await gateway.answer("/v1/completions", ASK))[0] == 200


async def test_what_one_key_may_take_is_limited_and_leaves_the_others_alone(world, tmp_path):
    (tmp_path / "keys").write_text("a\nb\n")
    hold = asyncio.Event()
    expert = await world.expert("code", hold=hold)
    policy = world.policy(expert, limits={"perKey": {"maxConcurrency": 1, "requestsPerMinute": 2}})
    gateway = await world.gateway(policy, keys=tmp_path / "keys")
    a, b = ({"Authorization": f"Bearer {key}"} for key in "ab")
    held = asyncio.create_task(gateway.answer("/v1/completions", ASK, headers=a))
    async with asyncio.timeout(5):
        await expert.begun.wait()
    status, headers, answer = await gateway.answer("/v1/completions", ASK, headers=a)
    assert (status, answer["error"]["code"], headers["Retry-After"]) == (429, "too_many_requests", "1")
    assert (
        answer["error"]["message"]
        == "this API key has 1 request in flight, which is the most that it may have at once"
    )
    hold.set()
    assert (await held)[0] == 200
    status, headers, answer = await gateway.answer("/v1/completions", ASK, headers=a)
    assert (status, answer["error"]["code"], headers["Retry-After"]) == (429, "rate_limit_exceeded", "30")
    assert (await gateway.get("/v1/models", headers=a))["object"] == "list"
    assert (await gateway.answer("/v1/completions", ASK, headers=b))[0] == 200


async def test_keys_are_required_once_there_is_a_file_of_them(world, tmp_path):
    keys = tmp_path / "keys"
    gateway = await world.gateway(world.policy(await world.expert("code")), keys=keys)

    async def status_with(key):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return (await gateway.answer("/v1/completions", ASK, headers=headers))[0]

    assert await status_with("sesame") == 401
    keys.write_text("# for tests\nsesame  # Ali's\n\n")
    assert await status_with("sesame") == 200
    assert [await status_with(key) for key in (None, "Sesame", "#", "sesame2")] == [401] * 4
    keys.write_text("another-key-of-another-length\n")
    assert [await status_with(key) for key in ("sesame", "another-key-of-another-length")] == [401, 200]
    keys.write_text("")
    assert await status_with("another-key-of-another-length") == 401
    assert (await gateway.get("/healthz"))["status"] == "ok"


async def test_a_key_comes_in_either_header(world, tmp_path):
    """API servers keep Authorization for themselves, so what comes through one has its key elsewhere."""
    (tmp_path / "keys").write_text("sesame\n")
    gateway = await world.gateway(world.policy(await world.expert("code")), keys=tmp_path / "keys")
    for headers, expected in (
        ({"x-api-key": "sesame"}, 200),
        ({"x-api-key": "other"}, 401),
        ({"x-api-key": "sesame", "Authorization": "Bearer other"}, 401),
        ({"x-api-key": "sesame", "Authorization": "Basic dTpw"}, 200),
    ):
        assert (await gateway.answer("/v1/completions", ASK, headers=headers))[0] == expected


async def test_keys_of_a_mounted_secret_are_rotated_without_a_restart(world, tmp_path):
    """A kubelet writes a new folder and renames a link to it; both keys hold while clients change theirs."""

    def mount(version, text):
        (tmp_path / version).mkdir()
        (tmp_path / version / "keys").write_text(text)
        (tmp_path / "new").symlink_to(version)
        (tmp_path / "new").replace(tmp_path / "..data")

    mount("..1", "old\n")
    (tmp_path / "keys").symlink_to("..data/keys")
    gateway = await world.gateway(world.policy(await world.expert("code")), keys=tmp_path / "keys")

    async def statuses():
        sent = [{"Authorization": f"Bearer {key}"} for key in ("old", "new")]
        return [(await gateway.answer("/v1/completions", ASK, headers=headers))[0] for headers in sent]

    assert await statuses() == [200, 401]
    mount("..2", "old\nnew\n")
    assert await statuses() == [200, 200]
    mount("..3", "new\n")
    assert await statuses() == [401, 200]


async def test_a_clients_key_goes_no_further(world, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("sesame\n")
    expert = await world.expert("code")
    seen = []

    async def note(request):
        seen.append(dict(request.headers))

    expert.trouble = note
    gateway = await world.gateway(world.policy(expert), keys=keys)
    await gateway.answer("/v1/completions", ASK, headers={"Authorization": "Bearer sesame"})
    assert "Authorization" not in seen[0] and "sesame" not in str(seen)


async def test_the_first_piece_of_a_stream_arrives_before_the_last_is_made(world):
    hold = asyncio.Event()
    gateway = await world.gateway(world.policy(await world.expert("code", hold=hold)))

    async with gateway.post("/v1/completions", ASK | {"stream": True}) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        async with asyncio.timeout(5):
            first = await response.content.readline()
        hold.set()
        rest = await response.read()

    assert first == b'data: {"choices":[{"text":"one"}]}\n'
    assert rest.endswith(b'data: {"choices":[{"text":"two"}]}\n\ndata: [DONE]\n\n')
