"""Reading requests at the border: whatever comes is a call or a 400 that says why."""

import json

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
