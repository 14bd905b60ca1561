"""Reading requests at the border: whatever comes is a request or a 400 that says why."""

import json

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
