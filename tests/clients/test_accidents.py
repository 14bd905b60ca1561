"""Mistakes and accidents that happen with clients: what they see, and that the pool goes on."""

import json
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import openai
import pytest

from .conftest import KEY, Pool, Reference

EMOJIS = "🙂🚀漢字é🏳️‍🌈"


@pytest.fixture(scope="module")
def client(pool: Pool) -> openai.OpenAI:
    return openai.OpenAI(base_url=pool.base_url, api_key=KEY, max_retries=0)


@pytest.mark.parametrize("ending", ["", "/v1/v1", "/v2"])
def test_a_wrong_base_url_is_not_found_and_says_where_it_is(pool: Pool, ending: str) -> None:
    client = openai.OpenAI(base_url=pool.gateway.url + ending, api_key=KEY, max_retries=0)
    with pytest.raises(openai.NotFoundError, match="there is no POST") as raised:
        client.completions.create(model="prose", prompt="x")
    assert ("/v1" in raised.value.message.partition("here")[2]) == (ending != "/v2")


def test_a_slash_after_the_base_url_changes_nothing(pool: Pool) -> None:
    client = openai.OpenAI(base_url=pool.base_url + "/", api_key=KEY)
    assert client.completions.create(model="prose", prompt="x", max_tokens=1).choices


def test_emojis_that_are_cut_by_max_tokens_are_whole_or_absent(client: openai.OpenAI) -> None:
    """A character of several tokens that is not complete is one sign for what is no character, the same in a stream."""
    ask = {"model": "prose", "prompt": EMOJIS * 3, "echo": True, "temperature": 0}
    for tokens in range(1, 8):
        whole = client.completions.create(**ask, max_tokens=tokens).choices[0].text
        chunks = list(client.completions.create(**ask, max_tokens=tokens, stream=True))
        assert "".join(chunk.choices[0].text for chunk in chunks) == whole
        assert whole.startswith(EMOJIS * 3)


def test_half_an_emoji_is_scored_by_every_expert(pool: Pool) -> None:
    """JavaScript cuts texts inside of emojis; the half that is left must not turn routing off."""
    body = b'{"model": "pool", "prompt": "The gateway \\ud83d", "max_tokens": 1}'
    with _post(pool, body) as response:
        assert response.status == 200 and response.headers["x-moe-strategy"] == "Posterior"


def test_a_prompt_of_megabytes_is_refused_and_says_how_much_is_read(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="larger than 1048576 bytes") as raised:
        client.completions.create(model="prose", prompt="x" * 3_000_000)
    assert raised.value.status_code == 413


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "it is empty"),
        (b'{"model": "prose", "prompt": "x", "temperature": NaN}', "NaN is not a number that JSON knows"),
        (b'{"model": "prose", "prompt": "x", "temperature": 1e999}', "1e999 is larger"),
        (b"model=prose&prompt=x", "not JSON"),
        ('{"model": "prose", "prompt": "ä"}'.encode("latin-1"), "is not UTF-8"),
    ],
)
def test_a_body_that_cannot_be_read_is_a_bad_request_that_says_why(
    pool: Pool, body: bytes, message: str
) -> None:
    with pytest.raises(urllib.error.HTTPError) as raised:
        _post(pool, body)
    assert raised.value.code == 400 and message in json.load(raised.value)["error"]["message"]


def test_of_a_field_that_is_there_twice_the_last_counts(pool: Pool, reference: Reference) -> None:
    body = b'{"model": "none", "model": "prose", "prompt": "no", "prompt": "The operator", "max_tokens": 5, "temperature": 0}'
    with _post(pool, body) as response:
        text = json.load(response)["choices"][0]["text"]
    assert text == reference.completion("prose", "The operator", 5)["text"]


def test_a_hundred_clients_that_leave_keep_nobody_waiting(client: openai.OpenAI) -> None:
    def leave() -> None:
        with suppress(openai.APIConnectionError):
            client.with_options(timeout=0.05).completions.create(model="prose", prompt="x", max_tokens=450)

    leaving = [threading.Thread(target=leave) for _ in range(100)]
    for thread in leaving:
        thread.start()
    for thread in leaving:
        thread.join()
    started = time.monotonic()
    assert client.completions.create(model="prose", prompt="x", max_tokens=1).choices
    assert time.monotonic() - started < 60, "the servers still work for clients that have left"


def test_streams_of_two_servers_that_die_end_with_an_error_and_both_come_back(
    pool: Pool, client: openai.OpenAI
) -> None:
    streams = {
        name: iter(
            client.completions.create(model=name, prompt="x", max_tokens=450, temperature=1.5, stream=True)
        )
        for name in pool.experts
    }
    for stream in streams.values():
        next(stream)
    with _killed(pool):
        for stream in streams.values():
            with pytest.raises(openai.APIError) as broken:
                list(stream)
            assert broken.value.code == "expert_lost"
        with pytest.raises(openai.InternalServerError) as raised:
            client.completions.create(model="pool", prompt="x")
        assert raised.value.status_code == 503
    for name in pool.experts:
        assert (
            client.with_options(max_retries=5)
            .completions.create(model=name, prompt="x", max_tokens=1)
            .choices
        )


@contextmanager
def _killed(pool: Pool) -> Iterator[None]:
    for expert in pool.experts.values():
        expert.end(signal.SIGKILL)
    try:
        yield
    finally:
        for expert in pool.experts.values():
            expert.start("/ready")


def _post(pool: Pool, body: bytes) -> Any:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{pool.base_url}/completions", data=body, headers=headers)
    return urllib.request.urlopen(request, timeout=60)
