"""LiteLLM, unmodified: its SDK, and its proxy between OpenAI's client and the gateway."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or importing it asks the internet for prices
import litellm

from .conftest import KEY, Pool, Reference, free_port

MASTER_KEY = "sk-" + "0123456789abcdef" * 4
CHAT = [{"role": "user", "content": "What is a revision?"}]


@pytest.fixture
def ask(pool: Pool) -> dict[str, Any]:
    """What every call has."""
    return {"api_base": pool.base_url, "api_key": KEY, "max_tokens": 16, "temperature": 0, "num_retries": 0}


def test_a_chat_and_its_stream(ask: dict[str, Any], reference: Reference) -> None:
    prompt = reference.chat("prose", CHAT)
    expected = reference.greedy("prose", prompt, 16)
    answer = litellm.completion(model="openai/prose", messages=CHAT, **ask)
    assert answer.choices[0].message.content == expected["text"]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
        len(prompt) - 1,
        len(expected["ids"]),
    )
    options = {"include_usage": True}
    chunks = list(
        litellm.completion(model="openai/prose", messages=CHAT, stream=True, stream_options=options, **ask)
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == expected["text"]
    assert chunks[-1].usage.completion_tokens == len(expected["ids"])


async def test_a_completion_with_logprobs(ask: dict[str, Any], reference: Reference) -> None:
    expected = reference.completion("prose", "The operator", 16)
    model = "text-completion-openai/prose"
    answer = await litellm.atext_completion(model=model, prompt="The operator", logprobs=2, **ask)
    assert answer.choices[0].text == expected["text"]
    assert answer.choices[0].logprobs.token_logprobs == pytest.approx(expected["logprobs"], abs=1e-4)


def test_errors_have_the_classes_that_callers_catch(ask: dict[str, Any]) -> None:
    def call(**changes: Any) -> None:
        litellm.completion(**{"model": "openai/prose", "messages": CHAT} | ask | changes)

    with pytest.raises(litellm.AuthenticationError):
        call(api_key="wrong")
    with pytest.raises(litellm.NotFoundError):
        call(model="openai/prosa")
    with pytest.raises(litellm.ContextWindowExceededError):
        call(messages=[{"role": "user", "content": "many words " * 600}])
    with pytest.raises(litellm.BadRequestError, match="presence_penalty"):
        call(presence_penalty=0.5)


def test_a_busy_gateway_is_a_rate_limit_and_one_without_servers_is_unavailable(
    pool: Pool, ask: dict[str, Any]
) -> None:
    with pool.gateway_with(limits={"maxConcurrency": 1}) as busy:
        client = openai.OpenAI(base_url=f"{busy.url}/v1", api_key=KEY)
        held = client.completions.create(model="prose", prompt="x", max_tokens=450, stream=True)
        next(iter(held))
        call = {"model": "openai/prose", "messages": CHAT} | ask | {"api_base": f"{busy.url}/v1"}
        with pytest.raises(litellm.RateLimitError):
            litellm.completion(**call, max_retries=0)
        held.close()
        assert litellm.completion(**call, max_retries=3).choices
    silent = [expert | {"ready": False} for expert in pool.policy["experts"]]
    with (
        pool.gateway_with(experts=silent) as stopped,
        pytest.raises(litellm.ServiceUnavailableError) as raised,
    ):
        litellm.completion(**call | {"api_base": f"{stopped.url}/v1"}, max_retries=0)
    assert "no server of prose is ready" in str(raised.value)


@pytest.fixture(scope="module")
def proxy(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of LiteLLM's proxy in front of the gateway."""
    folder: Path = tmp_path_factory.mktemp("litellm")
    parameters = {"model": "openai/*", "api_base": pool.base_url, "api_key": KEY}
    config = {"model_list": [{"model_name": "*", "litellm_params": parameters}]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = ["litellm", "--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    executable = str(Path(sys.executable).parent / command[0])
    variables = os.environ | {"LITELLM_MASTER_KEY": MASTER_KEY}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([executable, *command[1:]], stdout=log, stderr=log, env=variables)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def test_openais_client_gets_the_same_through_the_proxy(proxy: str, reference: Reference) -> None:
    expected = reference.greedy("prose", reference.chat("prose", CHAT), 16)["text"]
    client = openai.OpenAI(base_url=proxy, api_key=MASTER_KEY, max_retries=0)
    ask = {"model": "prose", "messages": CHAT, "max_tokens": 16, "temperature": 0}
    assert client.chat.completions.create(**ask).choices[0].message.content == expected
    chunks = client.chat.completions.create(**ask, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected
    with pytest.raises(openai.BadRequestError, match="presence_penalty"):
        client.chat.completions.create(**ask, presence_penalty=0.5)
