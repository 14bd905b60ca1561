"""Reading requests at the border: whatever comes is a call or a 400 that says why."""

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_formats.routing_policy import Limits
from moe_gateway.openai import ApiError, parse_call

LIMITS = Limits()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["model", "prompt", "messages", "max_tokens", "max_completion_tokens", "stream", "user", "other"]
MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": st.text() | JSON})
BODY = st.dictionaries(st.sampled_from(FIELDS), JSON | st.lists(MESSAGE, min_size=1, max_size=3) | st.text())


@settings(deadline=None)
@given(st.sampled_from(["completions", "chat/completions", "route"]), BODY | JSON)
def test_any_json_is_a_call_or_a_400_that_names_the_field(endpoint, body):
    try:
        call = parse_call(endpoint, json.dumps(body).encode(), LIMITS)
    except ApiError as error:
        assert error.status == 400
        assert error.body["error"]["param"] in (None, *FIELDS)
        assert error.body["error"]["message"]
    else:
        forwarded = json.loads(call.body_for("expert"))
        assert forwarded["model"] == "expert"
        assert forwarded.keys() == body.keys() | {"model"}


@settings(deadline=None)
@given(st.binary(max_size=50))
def test_any_bytes_are_a_call_or_a_400(data):
    with pytest.raises(ApiError) as caught:
        parse_call("completions", data, LIMITS)
    assert caught.value.status == 400


def test_a_field_is_named_without_the_validators_own_words():
    for body, path in (
        ({"prompt": 3}, "prompt: "),
        ({"prompt": "x", "messages": [{"role": "user", "content": 3}]}, "messages.0.content: "),
        ({"prompt": "x", "messages": [{"role": "user", "content": [{"type": 1}]}]}, "messages.0.content"),
    ):
        with pytest.raises(ApiError) as caught:
            parse_call("route", json.dumps(body).encode(), LIMITS)
        message = caught.value.body["error"]["message"]
        assert message.startswith(path)
        assert "[" not in message.split(":")[0] and ".str" not in message


def test_a_lone_surrogate_is_passed_on_as_a_question_mark():
    call = parse_call("completions", b'{"model": "pool", "prompt": "a\\ud800b"}', LIMITS)
    assert json.loads(call.body_for("e"))["prompt"] == "a?b"


@pytest.mark.parametrize(
    ("prompt", "text"),
    [("one", "one"), (["one", "two"], "one\ntwo"), ([1, 2], None), ([[1], [2]], None), ("", ""), ([], "")],
)
def test_the_routed_text_of_a_completion_is_its_prompt(prompt, text):
    body = json.dumps({"model": "pool", "prompt": prompt}).encode()
    assert parse_call("completions", body, LIMITS).text == text


def test_the_routed_text_of_a_chat_is_what_the_user_says_or_else_everything():
    def text_of(*messages):
        turns = [{"role": role, "content": content} for role, content in messages]
        return parse_call("route", json.dumps({"messages": turns}).encode(), LIMITS).text

    assert text_of(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")) == "a\nc"
    assert text_of(("system", "s"), ("assistant", "b")) == "s\nb"


@pytest.mark.parametrize(
    ("field", "data"),
    [
        ("prompt", b'{"model": "pool", "prompt": [' + b"{}," * 120_000 + b"{}]}"),
        ("prompt", b'{"model": "pool", "prompt": [' + b"[1]," * 120_000 + b'["x"]]}'),
        ("prompt", b'{"model": "pool", "prompt": [' + b'["x"],' * 120_000 + b"[1]]}"),
        ("prompt", b'{"model": "pool", "prompt": [' + b"1," * 250_000 + b'"x"]}'),
        ("prompt", b'{"model": "pool", "prompt": [' + b'"",' * 250_000 + b"1]}"),
        ("messages", b'{"model": "pool", "messages": [' + b"{}," * 120_000 + b"{}]}"),
        (
            "messages",
            b'{"model": "pool", "messages": [{"role": "user", "content": [' + b"1," * 200_000 + b"1]}]}",
        ),
        (None, b'{"model": "pool", "prompt": [' + b"[]," * 340_000 + b"[]]}"),
        (None, b'{"model": "pool", "prompt": ' + b"[" * 1_000_000 + b"}"),
    ],
    ids=[
        "objects",
        "last list",
        "lists of texts",
        "last id",
        "last text",
        "messages",
        "parts",
        "too many",
        "too deep",
    ],
)
def test_a_megabyte_that_is_wrong_everywhere_is_refused_at_its_first_error(field, data):
    """An error object for each element and each branch of a union took a gigabyte."""
    tracemalloc.start()
    with pytest.raises(ApiError) as caught:
        parse_call("route", data, LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (caught.value.status, caught.value.body["error"]["param"]) == (400, field)
    assert peak < 100 * len(data)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([1, 2, "x"], "prompt.2: Input should be a valid integer"),
        (["x", 1], "prompt.1: Input should be a valid string"),
        ([[1, 2], [3, None]], "prompt.1.1: Input should be a valid integer"),
        ([[1], "x"], "prompt.1: Input should be a valid list"),
        ([{}], "prompt: give a text, a list of texts, a list of token ids, or a list of such lists"),
        ({"text": "x"}, "prompt: give a text, a list of texts, a list of token ids, or a list of such lists"),
        (True, "prompt: give a text, a list of texts, a list of token ids, or a list of such lists"),
    ],
)
def test_the_error_of_a_prompt_is_that_of_the_kind_that_it_is(prompt, message):
    with pytest.raises(ApiError) as caught:
        parse_call("route", json.dumps({"prompt": prompt}).encode(), LIMITS)
    assert str(caught.value) == message


def test_the_error_of_content_is_that_of_the_kind_that_it_is():
    for content, message in (
        ([{"type": "text"}, {"type": 3}], "messages.0.content.1.type: Input should be a valid string"),
        (["x"], "messages.0.content.0: Input should be an object"),
        (3, "messages.0.content: give a text, or a list of parts"),
    ):
        body = {"messages": [{"role": "user", "content": content}]}
        with pytest.raises(ApiError) as caught:
            parse_call("route", json.dumps(body).encode(), LIMITS)
        assert str(caught.value).startswith(message)
