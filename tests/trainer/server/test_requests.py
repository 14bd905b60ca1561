"""Reading requests at the border: whatever comes is a request or a 400 that says why."""

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_trainer.server.requests import (
    BadRequest,
    ChatRequest,
    CompletionRequest,
    parse_chat,
    parse_completion,
)
from moe_trainer.text.tokenizer import ByteTokenizer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 1000) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def _bodies(model):
    fields = st.sampled_from(sorted(model.model_fields))
    return st.dictionaries(fields, JSON).map(lambda body: {"model": "m", "prompt": "x"} | body)


@settings(deadline=None)
@given(_bodies(CompletionRequest) | JSON)
def test_any_completion_is_understood_or_refused_by_field(body):
    try:
        request = parse_completion(json.dumps(body).encode())
        prompts = request.prompts(ByteTokenizer(), ByteTokenizer.vocab_size)
    except BadRequest as error:
        assert error.status == 400
        assert error.body["error"]["param"] in (None, *CompletionRequest.model_fields)
    else:
        assert prompts and all(token < 259 for prompt in prompts for token in prompt)
        assert request.sampling().temperature <= 2


@settings(deadline=None)
@given(_bodies(ChatRequest) | JSON)
def test_any_chat_is_understood_or_refused_by_field(body):
    try:
        request = parse_chat(json.dumps(body).encode())
    except BadRequest as error:
        assert error.status == 400
        assert error.body["error"]["param"] in (None, *ChatRequest.model_fields)
    else:
        assert {role for role, _ in request.said()} <= {"system", "user", "assistant"}
        assert ByteTokenizer().decode(ByteTokenizer().prompt(request.said())).endswith("\n\n")


def test_a_field_is_named_without_the_validators_own_words():
    with pytest.raises(BadRequest) as caught:
        parse_completion(b'{"model": "m", "prompt": {"a": 1}}')
    assert caught.value.body["error"]["message"].startswith("prompt: ")


@pytest.mark.parametrize("seed", [0, -1, 2**63, 2**64 + 5])
def test_any_whole_number_is_a_seed(seed):
    request = parse_completion(json.dumps({"model": "m", "prompt": "x", "seed": seed}).encode())
    assert request.sampling().generator().initial_seed() >= 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": ["x"] * 65}, "prompt: List should have at most 64 items after validation, not 65"),
        ({"prompt": [[1]] * 65}, "prompt: List should have at most 64 items after validation, not 65"),
        ({"prompt": [-1]}, "prompt.0: Input should be greater than or equal to 0"),
        ({"prompt": [5, 2, -1]}, "prompt.2: Input should be greater than or equal to 0"),
        ({"prompt": [[5], [2, -1]]}, "prompt.1.1: Input should be greater than or equal to 0"),
        ({"prompt": [[5], []]}, "prompt.1: List should have at least 1 item after validation, not 0"),
        ({"prompt": ["x", 1]}, "prompt.1: Input should be a valid string"),
        (
            {"prompt": [True]},
            "prompt: give a text, a list of texts, a list of token ids, or a list of such lists",
        ),
        ({"prompt": 3}, "prompt: give a text, a list of texts, a list of token ids, or a list of such lists"),
        ({"prompt": "x", "stop": ["a", ""]}, "stop.1: String should have at least 1 character"),
        ({"prompt": "x", "stop": 3}, "stop: give a text, or a list of texts"),
    ],
)
def test_the_error_of_a_field_is_that_of_the_kind_that_it_is(fields, message):
    with pytest.raises(BadRequest) as caught:
        parse_completion(json.dumps({"model": "m"} | fields).encode())
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {}}],
            "content.1.type: Input should be 'text'",
        ),
        ([{"type": "text"}], "content.0.text: Field required"),
        (["x"], "content.0: Input should be an object"),
        (3, "content: give a text, or a list of parts of text"),
        (None, "content: Field required"),
    ],
)
def test_the_error_of_content_is_that_of_the_kind_that_it_is(content, message):
    with pytest.raises(BadRequest) as caught:
        parse_chat(json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode())
    assert str(caught.value) == f"messages.0.{message}"


@pytest.mark.parametrize(
    "data", [b"[]," * 120_000 + b"[1]", b"1," * 250_000 + b"-1", b'"",' * 250_000 + b"1"]
)
def test_a_body_that_is_wrong_everywhere_is_refused_at_its_first_error(data):
    tracemalloc.start()
    with pytest.raises(BadRequest, match="prompt"):
        parse_completion(b'{"model": "m", "prompt": [' + data + b"]}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * len(data)
