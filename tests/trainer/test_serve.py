"""An expert server with a small random model, over real HTTP."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import aiohttp
import pytest
import torch

from moe_formats.failure import JobError
from moe_formats.serve_config import ServeConfig
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.generation_config import set_temperature, temperature_of
from moe_trainer.models.preset_config import ModelConfig
from moe_trainer.models.preset_model import Model, initialise
from moe_trainer.serve import Settings, load
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.manifest import read_manifest
from moe_trainer.text.tokenizer import BOS, EOS, PAD, ByteTokenizer
from moe_web.listener import Listener

SMALL = ModelConfig(
    vocab_size=259,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    max_position_embeddings=256,
    bos_token_id=BOS,
    eos_token_id=EOS,
    pad_token_id=PAD,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with one artefact: a model that is sure enough of itself to have something to say."""
    folder = tmp_path_factory.mktemp("store")
    model = Model(SMALL)
    initialise(model, seed=5)
    with torch.no_grad():
        model.embed_tokens.weight.mul_(20)
    digest = checkpoint_format.write(folder, "a1", model, ByteTokenizer(), "{}")
    return folder, digest, model.eval()


def _config(store, **options):
    digest = store[1]
    return ServeConfig(
        **{"expert": "maths", "revision": "maths-1", "artefact": {"path": "a1", "digest": digest}} | options
    )


class Client:
    """A client of one server."""

    def __init__(self, session, url, server, engine, metrics_url, listener):
        self.session, self.url, self.server, self.engine = session, url, server, engine
        self.metrics_url, self.listener = metrics_url, listener

    async def post(self, path, body):
        data = body if isinstance(body, bytes) else json.dumps({"model": "maths"} | body)
        async with self.session.post(self.url + path, data=data) as response:
            return response.status, await response.json()

    async def complete(self, **body):
        status, answer = await self.post("/v1/completions", body)
        assert status == 200, answer
        return answer

    async def stream(self, path, **body):
        """Return the events of a stream, parsed, without the last, which must be [DONE]."""
        data = json.dumps({"model": "maths", "stream": True} | body)
        async with self.session.post(self.url + path, data=data) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            events = (await response.text()).split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]

    async def get(self, path):
        async with self.session.get(self.url + path) as response:
            return response.status, await response.text()

    async def metrics(self):
        async with self.session.get(self.metrics_url + "/metrics") as response:
            assert response.status == 200
            return await response.text()


@contextlib.asynccontextmanager
async def running(store, **options):
    server, engine = load(_config(store, **options), store[0])
    engine.start()
    applications = (server.application(), server.metrics_application())
    listeners = [Listener(app, host="127.0.0.1", port=0) for app in applications]
    for listener in listeners:
        await listener.start()
    urls = [f"http://127.0.0.1:{listener.port}" for listener in listeners]
    async with aiohttp.ClientSession() as session:
        yield Client(session, urls[0], server, engine, urls[1], listeners[0])
    for listener in listeners:
        await listener.stop(5)
    engine.stop()


@pytest.fixture
async def client(store):
    async with running(store) as client:
        yield client


def _greedy(model, prompt, tokens):
    """Decode without a cache: what the server must agree with."""
    ids = [BOS, *prompt.encode()]
    for _ in range(tokens):
        logits = model(torch.tensor([ids]))[0, -1]
        logits[[BOS, PAD]] = -torch.inf
        ids.append(int(logits.argmax()))
    return ids[1 + len(prompt.encode()) :]


def _logprobs(model, text):
    ids = [BOS, *ByteTokenizer().encode(text)]
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids]))[0].log_softmax(-1)
    return [float(logprobs[at, token]) for at, token in enumerate(ids[1:])]


async def test_greedy_text_is_that_of_the_model_without_a_cache(client, store):
    with torch.inference_mode():
        expected = _greedy(store[2], "Let x be", 12)
        logprobs = _logprobs(store[2], b"Let x be" + bytes(expected))[8:]
    answer = await client.complete(prompt="Let x be", max_tokens=12, temperature=0, logprobs=1)
    choice = answer["choices"][0]
    assert choice["text"] == ByteTokenizer().decode(expected)
    assert choice["finish_reason"] == "length"
    assert answer["usage"] == {"prompt_tokens": 8, "completion_tokens": 12, "total_tokens": 20}
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(logprobs, abs=1e-4)


async def test_an_echo_with_no_tokens_gives_the_prompts_log_likelihood(client, store):
    text = "naïve sets"
    answer = await client.complete(prompt=text, max_tokens=0, echo=True, logprobs=0)
    choice = answer["choices"][0]
    assert choice["text"] == text
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(_logprobs(store[2], text), abs=1e-4)
    assert choice["logprobs"]["tokens"][2:4] == ["bytes:\\xc3", "bytes:\\xaf"]
    assert choice["logprobs"]["text_offset"][:5] == [0, 1, 2, 2, 3]
    assert answer["usage"]["completion_tokens"] == 0


async def test_prompt_logprobs_are_in_vllms_shape(client, store):
    answer = await client.complete(prompt="ab", max_tokens=1, prompt_logprobs=2)
    entries = answer["choices"][0]["prompt_logprobs"]
    expected = _logprobs(store[2], "ab")
    assert [entry[str(ord(c))]["logprob"] for entry, c in zip(entries, "ab", strict=True)] == pytest.approx(
        expected, abs=1e-4
    )
    assert all(len(entry) in (2, 3) for entry in entries)
    assert sorted(value["rank"] for value in entries[0].values())[:2] == [1, 2]


async def test_several_prompts_are_answered_in_order(client):
    prompts = ["one", "two", "three"]
    answer = await client.complete(prompt=prompts, max_tokens=4, echo=True, temperature=0)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    for prompt, choice in zip(prompts, answer["choices"], strict=True):
        alone = await client.complete(prompt=prompt, max_tokens=4, echo=True, temperature=0)
        assert choice["text"] == alone["choices"][0]["text"]
        assert choice["text"].startswith(prompt)
    ids = await client.complete(prompt=[BOS, *b"one"], max_tokens=4, temperature=0)
    assert "one" + ids["choices"][0]["text"] == answer["choices"][0]["text"]


async def test_a_sequence_is_the_same_alone_and_among_others(store):
    """More requests than rows, of different lengths, entering and leaving the batch at different times."""
    async with running(store, max_batch=3) as client:
        asks = [{"prompt": "abc" * n, "max_tokens": 3 + n, "temperature": 0} for n in range(1, 10)]
        alone = [await client.complete(**ask) for ask in asks]
        together = await asyncio.gather(*(client.complete(**ask) for ask in asks))
        load = client.engine.load()
    assert [a["choices"] for a in together] == [a["choices"] for a in alone]
    assert (load.running, load.waiting, load.kv_cache_usage) == (0, 0, 0)


async def test_a_seed_repeats_and_no_seed_does_not(client):
    ask = {"prompt": "x", "max_tokens": 40, "temperature": 1.5}
    first, again = [await client.complete(**ask, seed=7) for _ in range(2)]
    assert first["choices"] == again["choices"]
    others = [(await client.complete(**ask))["choices"][0]["text"] for _ in range(3)]
    assert len(set(others)) > 1


async def test_a_tiny_nucleus_is_greedy(client):
    ask = {"prompt": "x", "max_tokens": 10}
    nucleus = await client.complete(**ask, temperature=2, top_p=1e-9)
    greedy = await client.complete(**ask, temperature=0)
    assert nucleus["choices"] == greedy["choices"]


async def test_a_stream_adds_up_to_the_whole_answer(client):
    ask = {"prompt": "Let x", "max_tokens": 30, "temperature": 1.0, "seed": 3, "logprobs": 1, "echo": True}
    whole = await client.complete(**ask)
    events = await client.stream("/v1/completions", **ask, stream_options={"include_usage": True})
    *pieces, last = events
    choices = [piece["choices"][0] for piece in pieces]
    assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
    assert [lp for c in choices for lp in c["logprobs"]["tokens"]] == whole["choices"][0]["logprobs"][
        "tokens"
    ]
    assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["length"]
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert len({event["id"] for event in events}) == 1
    assert not any("\ufffd" in c["text"] for c in choices) or "\ufffd" in whole["choices"][0]["text"]


async def test_text_ends_before_a_stop_string(client):
    whole = (await client.complete(prompt="Let x", max_tokens=40, temperature=1, seed=3))["choices"][0][
        "text"
    ]
    stop = whole[10:12]
    answer = await client.complete(prompt="Let x", max_tokens=40, temperature=1, seed=3, stop=[stop, "never"])
    assert answer["choices"][0] == {
        "index": 0,
        "text": whole[: whole.index(stop)],
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert answer["usage"]["completion_tokens"] < 40
    events = await client.stream(
        "/v1/completions", prompt="Let x", max_tokens=40, temperature=1, seed=3, stop=stop
    )
    assert "".join(event["choices"][0]["text"] for event in events) == whole[: whole.index(stop)]


async def test_a_chat_goes_on_from_what_was_said(client):
    body = {"messages": [{"role": "user", "content": "Prove it"}], "max_tokens": 8, "temperature": 0}
    status, answer = await client.post("/v1/chat/completions", body)
    expected = await client.complete(prompt="Prove it\n\n", max_tokens=8, temperature=0)
    choice = answer["choices"][0]
    assert status == 200 and answer["object"] == "chat.completion"
    assert choice["message"] == {"role": "assistant", "content": expected["choices"][0]["text"]}
    assert choice["finish_reason"] == "length"

    events = await client.stream("/v1/chat/completions", **body, logprobs=True, top_logprobs=2)
    deltas = [event["choices"][0]["delta"] for event in events]
    assert [delta.get("role") for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert "".join(delta["content"] for delta in deltas) == choice["message"]["content"]
    logprobs = [entry for event in events for entry in event["choices"][0]["logprobs"]["content"]]
    assert len(logprobs) == 8 and all(len(entry["top_logprobs"]) == 2 for entry in logprobs)


async def test_a_chat_without_a_limit_uses_the_context(store):
    async with running(store, max_context=40) as client:
        body = {"messages": [{"role": "user", "content": "Prove it"}], "temperature": 0}
        _, answer = await client.post("/v1/chat/completions", body)
    assert answer["usage"]["total_tokens"] <= 39
    assert answer["choices"][0]["finish_reason"] == "stop" or answer["usage"]["total_tokens"] == 39


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("completions", b"{", 400, None),
        ("completions", b"[]", 400, None),
        ("completions", {}, 400, "prompt"),
        ("completions", {"prompt": []}, 400, "prompt"),
        ("completions", {"prompt": [1, 999]}, 400, "prompt"),
        ("completions", {"prompt": "x", "model": "poetry"}, 404, "model"),
        ("completions", {"prompt": "x", "max_tokens": 1000}, 400, "max_tokens"),
        ("completions", {"prompt": "x" * 300}, 400, "max_tokens"),
        ("completions", {"prompt": "x", "max_tokens": -1}, 400, "max_tokens"),
        ("completions", {"prompt": "x", "temperature": 3}, 400, "temperature"),
        ("completions", {"prompt": "x", "top_p": 0}, 400, "top_p"),
        ("completions", {"prompt": "x", "n": 2}, 400, "n"),
        ("completions", {"prompt": "x", "stop": ""}, 400, "stop"),
        ("completions", {"prompt": "x", "logprobs": 50}, 400, "logprobs"),
        ("completions", {"prompt": "x", "presence_penalty": 1}, 400, "presence_penalty"),
        ("chat/completions", {"messages": []}, 400, "messages"),
        ("chat/completions", {"messages": [{"role": "bard", "content": "x"}]}, 400, "messages"),
        ("chat/completions", {"messages": [{"role": "user", "content": "x" * 300}]}, 400, "messages"),
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": [{}]}, 400, "tools"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_the_fields_name(client, path, body, status, param):
    found, answer = await client.post(f"/v1/{path}", body)
    assert (found, answer["error"]["param"]) == (status, param)
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["message"]


async def test_a_body_that_is_too_large_is_a_413(client):
    status, answer = await client.post("/v1/completions", b" " * (4 * 1024 * 1024 + 1))
    assert (status, answer["error"]["code"]) == (413, "request_too_large")


async def test_more_requests_than_may_wait_are_a_429(store):
    async with running(store, max_batch=1, max_queue=1) as client:
        ask = {"model": "maths", "prompt": "x", "max_tokens": 200, "stop": "\0never"}
        outcomes = await asyncio.gather(*(client.post("/v1/completions", ask) for _ in range(12)))
    statuses = [status for status, _ in outcomes]
    assert 200 in statuses and 429 in statuses and set(statuses) == {200, 429}
    refused = next(answer for status, answer in outcomes if status == 429)
    assert refused["error"]["code"] == "too_many_requests"


async def test_scoring_a_prompt_does_not_wait_for_a_row(store):
    async with running(store, max_batch=1) as client:
        body = json.dumps(
            {"model": "maths", "prompt": "x", "max_tokens": 250, "temperature": 0, "stream": True}
        )
        async with client.session.post(client.url + "/v1/completions", data=body) as response:
            await response.content.readline()
            scored = await client.complete(prompt="abc", max_tokens=0, echo=True, logprobs=0)
            assert client.engine.load().running == 1
            assert len(scored["choices"][0]["logprobs"]["token_logprobs"]) == 3


async def test_a_temperature_next_to_nothing_is_greedy(client):
    ask = {"prompt": "x", "max_tokens": 10}
    answers = [await client.complete(**ask, temperature=t) for t in (0, 1e-300, 0.0009)]
    assert answers[0]["choices"] == answers[1]["choices"] == answers[2]["choices"]


async def test_a_client_that_leaves_frees_its_row(store):
    async with running(store, max_batch=1) as client:
        body = json.dumps({"model": "maths", "prompt": "x", "max_tokens": 250, "stream": True, "seed": 1})
        async with client.session.post(client.url + "/v1/completions", data=body) as response:
            await response.content.readline()
        async with asyncio.timeout(10):
            while client.engine.load().running:
                await asyncio.sleep(0.005)
        assert (await client.complete(prompt="x", max_tokens=2))["usage"]["completion_tokens"] <= 2


async def test_requests_that_outlast_the_drain_are_told_so(client, monkeypatch):
    """Passes wait until all is over, so both requests are in flight when the time for them ends."""
    held, model = threading.Event(), client.engine._model

    def passes_wait(*arguments):
        held.wait(30)
        return model(*arguments)

    ask = {"prompt": "x", "max_tokens": 250}
    data = json.dumps({"model": "maths", "stream": True} | ask)
    async with client.session.post(client.url + "/v1/completions", data=data) as response:
        await response.content.readline()
        monkeypatch.setattr(client.engine, "_model", passes_wait)
        whole = asyncio.create_task(client.post("/v1/completions", ask))
        async with asyncio.timeout(10):
            while client.engine.load().running + client.engine.load().waiting < 2:
                await asyncio.sleep(0.005)
            await client.listener.stop(0.1)
        held.set()
        events = (await response.text()).split("\n\n")
    error = json.loads(events[-2].strip().removeprefix("data: "))["error"]
    assert (error["code"], error["type"]) == ("stopping", "server_error")
    status, answer = await whole
    assert (status, answer["error"]["code"]) == (503, "stopping")


async def test_the_gateways_most_tokens_hold_for_a_request_that_names_no_number(client):
    """Left out, `max_tokens` of a chat is all that the context has room for, and that of a completion is 16."""
    chat = {"model": "maths", "messages": [{"role": "user", "content": "x"}]}
    for path, body in (
        ("/v1/chat/completions", chat),
        ("/v1/completions", {"model": "maths", "prompt": "x"}),
    ):
        for most, expected in ((None, None), ("5", 5), ("many", None), ("9999", None)):
            headers = {} if most is None else {"x-moe-max-tokens": most}
            async with client.session.post(
                client.url + path, json=body | {"seed": 1}, headers=headers
            ) as response:
                answer = await response.json()
            assert response.status == 200, answer
            tokens = answer["usage"]["completion_tokens"]
            assert tokens == expected if expected else tokens > 5


async def test_a_body_that_is_not_what_its_encoding_says_is_a_400(client):
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    async with client.session.post(
        client.url + "/v1/completions", data=b"not gzip at all", headers=headers
    ) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "unreadable_body"


async def test_a_pass_that_fails_is_a_500_and_the_next_request_is_served(client, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(client.engine, "_model", fail)
    status, answer = await client.post("/v1/completions", {"prompt": "x", "max_tokens": 3})
    assert (status, answer["error"]["code"]) == (500, "internal_error")
    monkeypatch.undo()
    assert await client.complete(prompt="x", max_tokens=3)
    assert (await client.get("/health"))[0] == 200


async def test_ready_answers_only_for_the_loaded_digest(client, store):
    digest = store[1]
    assert (await client.get(f"/ready?digest={digest}"))[0] == 200
    assert (await client.get("/ready"))[0] == 200
    status, text = await client.get("/ready?digest=sha256:" + "0" * 64)
    assert (status, json.loads(text)["digest"]) == (503, digest)
    client.server.draining = True
    assert (await client.get(f"/ready?digest={digest}"))[0] == 503


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/v1/completions", "there is no GET /v1/completions here, only POST"),
        ("POST", "/v1/models", "there is no POST /v1/models here, only GET"),
        ("POST", "/v1/embeddings", "there is no POST /v1/embeddings here"),
        ("GET", "/", "there is no GET / here"),
    ],
)
async def test_an_endpoint_that_is_not_there_is_an_error_in_openais_format(client, method, path, words):
    async with client.session.request(method, client.url + path) as response:
        body = await response.json()
    assert (response.status, response.content_type) == (404, "application/json")
    assert body["error"] == {
        "message": words,
        "type": "invalid_request_error",
        "param": None,
        "code": "unknown_endpoint",
    }


async def test_prometheus_and_gateways_have_a_port_each(client):
    """A NetworkPolicy that lets Prometheus scrape a server must not let it send requests, nor the other way round."""
    assert (await client.get("/metrics"))[0] == 404
    async with client.session.post(client.metrics_url + "/v1/completions", json={"prompt": "a"}) as response:
        assert response.status == 404
    assert 'vllm:num_requests_running{model_name="maths"}' in await client.metrics()


async def test_models_and_metrics_have_the_names_that_others_look_for(client):
    await client.complete(prompt="abc", max_tokens=5, stop="\0never", temperature=0)
    models = json.loads((await client.get("/v1/models"))[1])
    assert [model["id"] for model in models["data"]] == ["maths"]
    text = await client.metrics()
    for line in (
        'vllm:num_requests_running{model_name="maths"} 0.0',
        'vllm:num_requests_waiting{model_name="maths"} 0.0',
        'vllm:kv_cache_usage_perc{model_name="maths"} 0.0',
        'vllm:prompt_tokens_total{model_name="maths"} 3.0',
        'vllm:time_to_first_token_seconds_count{model_name="maths"} 1.0',
        'vllm:request_time_per_output_token_seconds_count{model_name="maths"} 1.0',
        'vllm:e2e_request_latency_seconds_count{model_name="maths"} 1.0',
    ):
        assert line in text
    assert "vllm:generation_tokens_total" in text


def test_nothing_is_loaded_whose_digest_is_not_the_configs(store, tmp_path):
    wrong = {"path": "a1", "digest": "sha256:" + "0" * 64}
    with pytest.raises(JobError, match="ArtefactCorrupt"):
        load(_config(store, artefact=wrong), store[0])


def test_settings_name_what_is_wrong_with_the_environment():
    good = ServeConfig(expert="e", revision="e-1", artefact={"path": "a", "digest": "sha256:" + "0" * 64})
    variables = {
        "MOE_SERVE_CONFIG": good.to_json(),
        "MOE_STORE": "/store",
        "PORT": "81",
        "POD_IP": "127.0.0.9",
    }
    settings = Settings.read(variables)
    assert (settings.config, settings.host, settings.port) == (good, "127.0.0.9", 81)
    for name, value, message in (
        ("MOE_SERVE_CONFIG", "{}", "MOE_SERVE_CONFIG: expert: Field required"),
        ("MOE_SERVE_CONFIG", good.to_json().replace('"a"', '"../a"'), "artefact.path"),
        ("MOE_STORE", "", "MOE_STORE is not set"),
        ("PORT", "http", "PORT is 'http'"),
    ):
        with pytest.raises(JobError, match=message):
            Settings.read(variables | {name: value})


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _server(store, log, port, *, metrics_port=None, **options):
    environment = os.environ | ({"METRICS_PORT": str(metrics_port)} if metrics_port else {})
    environment |= {
        "MOE_SERVE_CONFIG": _config(store, **options).to_json(),
        "MOE_STORE": str(store[0]),
        "PORT": str(port),
        "MOE_TERMINATION_LOG": str(log),
    }
    return subprocess.Popen([sys.executable, "-m", "moe_trainer.main", "serve"], env=environment)


def test_a_stopping_server_finishes_what_is_in_flight_and_exits_0(store, tmp_path):
    port, metrics_port = _free_port(), _free_port()
    process = _server(store, tmp_path / "log", port, metrics_port=metrics_port)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(f"{url}/ready?digest={store[1]}", process)
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=30) as response:
            assert b"vllm:num_requests_running" in response.read()
        body = {"model": "maths", "prompt": "x", "max_tokens": 250, "stop": "\0never", "stream": True}
        request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=30) as response:
            response.readline()
            process.send_signal(signal.SIGTERM)
            text = response.read().decode()
        assert text.endswith("data: [DONE]\n\n")
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()


def test_a_server_of_altered_weights_ends_with_64_and_says_why(store, tmp_path):
    log = tmp_path / "log"
    process = _server(store, log, _free_port(), artefact={"path": "a1", "digest": "sha256:" + "0" * 64})
    try:
        assert process.wait(timeout=60) == 64
    finally:
        process.kill()
        process.wait()
    message = json.loads(log.read_text())
    assert (message["kind"], message["reason"]) == ("failure", "ArtefactCorrupt")


def _wait_until_ready(url, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise AssertionError(f"{url} did not answer; exit code {process.poll()}")


def test_the_config_reads_nothing_heavy():
    code = "import sys, moe_formats.serve_config; print('torch' in sys.modules, 'aiohttp' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "False"]


async def test_a_request_without_a_temperature_is_sampled_at_the_artefacts_or_the_servers(store, tmp_path):
    model = store[2]
    ask = {"prompt": "Let x", "max_tokens": 30, "seed": 3}
    async with running(store) as client:  # a preset's generation_config.json says 1
        hot = await client.complete(**ask)
        assert hot["choices"] == (await client.complete(**ask, temperature=1))["choices"]
        greedy = (await client.complete(**ask, temperature=0))["choices"]
    assert hot["choices"] != greedy
    async with running(store, temperature=0) as client:
        assert (await client.complete(**ask))["choices"] == greedy
        assert (await client.complete(**ask, temperature=1))["choices"] == hot["choices"]
    with new_folder(tmp_path, "a1", "artefact") as working:
        checkpoint_format.write_files(working, model, ByteTokenizer())
        set_temperature(working, 0)
    async with running((tmp_path, read_manifest(tmp_path, "a1")[1], model)) as client:
        assert (await client.complete(**ask))["choices"] == greedy


@pytest.mark.parametrize(
    ("text", "temperature"),
    [
        ('{"temperature": 0.6, "do_sample": true}', 0.6),
        ('{"temperature": 0.6, "do_sample": false}', 0.0),
        ('{"temperature": 7}', 1.0),
        ('{"temperature": "hot"}', 1.0),
        ("{}", 1.0),
        ("[]", 1.0),
        ("no JSON", 1.0),
    ],
)
def test_a_generation_config_says_how_it_is_sampled(tmp_path, text, temperature):
    assert temperature_of(tmp_path) == 1.0
    (tmp_path / "generation_config.json").write_text(text)
    assert temperature_of(tmp_path) == temperature


def test_a_temperature_is_written_beside_what_is_there(tmp_path):
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 257, "temperature": 1.0}')
    set_temperature(tmp_path, 0.3)
    assert temperature_of(tmp_path) == 0.3
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == 257
    set_temperature(tmp_path, 0)
    assert temperature_of(tmp_path) == 0
