"""Every field of OpenAI's and vLLM's requests is applied, harmless, or refused by name."""

import json

import pytest

from moe_formats.routing_policy import Limits
from moe_gateway.openai import ApiError, parse_call
from moe_trainer.server.requests import (
    BadRequest,
    ChatRequest,
    CompletionRequest,
    parse_chat,
    parse_completion,
)
from moe_web import openai_fields

COMPLETION = {"model": "m", "prompt": "x"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def _read(endpoint, body):
    """Return the message and the field of the error with which gateway and server refuse a body, or None."""
    data, found = json.dumps(body).encode(), []
    parse = parse_completion if endpoint == "completions" else parse_chat
    for reads in (parse, lambda data: parse_call(endpoint, data, Limits())):
        try:
            reads(data)
        except (BadRequest, ApiError) as error:
            assert error.status == 400
            found.append((error.body["error"]["message"], error.body["error"]["param"]))
        else:
            found.append(None)
    assert found[0] == found[1], "gateway and server disagree"
    return found[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("logit_bias", {"50256": -100}),
        ("response_format", {"type": "json_object"}),
        ("n", 2),
        ("n", True),
        ("presence_penalty", 0.5),
        ("tools", [{}]),
        ("tool_choice", "required"),
        ("top_k", 5),
        ("min_p", 0.1),
        ("repetition_penalty", 1.2),
        ("ignore_eos", True),
        ("min_tokens", 3),
        ("stop_token_ids", [7]),
        ("guided_json", {}),
        ("chat_template", "{{ 1 }}"),
        ("tempreature", 0),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(field, value):
    for endpoint, body in (("completions", COMPLETION), ("chat/completions", CHAT)):
        message, param = _read(endpoint, body | {field: value})
        assert param == field and message.startswith(f"{field}: ")


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "presence_penalty": 0.0, "frequency_penalty": 0, "logit_bias": {}},
        {"response_format": {"type": "text"}, "tools": [], "tool_choice": "auto"},
        {
            "top_k": -1,
            "min_p": 0,
            "repetition_penalty": 1.0,
            "ignore_eos": False,
            "skip_special_tokens": True,
        },
        {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "seed": 1},
    ],
)
def test_what_asks_for_nothing_or_changes_no_answer_is_read(fields):
    for endpoint, body in (("completions", COMPLETION), ("chat/completions", CHAT)):
        assert _read(endpoint, body | fields) is None


@pytest.mark.parametrize(("endpoint", "body"), [("completions", COMPLETION), ("chat/completions", CHAT)])
def test_null_means_absent_for_every_field(endpoint, body):
    optional = openai_fields.APPLIED[endpoint] | openai_fields.HARMLESS | openai_fields.REFUSED.keys()
    assert _read(endpoint, body | dict.fromkeys(optional - body.keys())) is None
    assert _read(endpoint, body | {"stream_options": {"include_usage": None}}) is None
    for required in body:
        assert _read(endpoint, body) is None
        with pytest.raises((BadRequest, ApiError), match=required):
            (parse_completion if endpoint == "completions" else parse_chat)(
                json.dumps(body | {required: None}).encode()
            )


def test_a_null_is_absent_in_a_message_too_and_calls_of_tools_are_refused():
    message = {"role": "user", "content": "x", "name": None, "tool_calls": None, "function_call": None}
    assert _read("chat/completions", CHAT | {"messages": [message]}) is None
    message["tool_calls"] = [{"id": "1"}]
    found, param = _read("chat/completions", CHAT | {"messages": [message]})
    assert param == "messages" and found.startswith("messages.0.tool_calls: ")


@pytest.mark.parametrize(
    ("place", "field"),
    [
        ({"stream_options": {"include_sage": True}}, "stream_options"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options"),
        ({"stream_options": {"continuous_usage_stats": True}}, "stream_options"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "sage": 1}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x", "sage": 1}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x", "audio": {"id": "a"}}]}, "messages"),
    ],
)
def test_what_is_inside_of_options_messages_and_parts_is_refused_by_its_path(place, field):
    message, param = _read("chat/completions", CHAT | place)
    assert param == field and message.startswith(f"{field}.")


@pytest.mark.parametrize(
    "place",
    [
        {"stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"messages": [{"role": "user", "content": "x", "type": "text"}]},  # lm-evaluation-harness
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]}]},
        {"messages": [{"role": "assistant", "content": "x", "annotations": [], "audio": None}]},
    ],
)
def test_what_is_harmless_inside_of_them_is_read(place):
    assert _read("chat/completions", CHAT | place) is None


def test_the_table_says_applied_for_exactly_what_the_server_reads():
    assert openai_fields.APPLIED["completions"] == CompletionRequest.model_fields.keys()
    assert openai_fields.APPLIED["chat/completions"] == ChatRequest.model_fields.keys()
    for applied in openai_fields.APPLIED.values():
        assert not openai_fields.HARMLESS & applied and not openai_fields.REFUSED.keys() & applied


def test_the_thoughts_of_an_earlier_answer_are_read():
    thoughtful = {"role": "assistant", "content": "y", "reasoning_content": "z", "reasoning": None}
    assert _read("chat/completions", CHAT | {"messages": [*CHAT["messages"], thoughtful]}) is None
    request = parse_chat(json.dumps(CHAT | {"messages": [*CHAT["messages"], thoughtful]}).encode())
    assert request.said() == [("user", "x"), ("thoughts", "z"), ("assistant", "y")]
    body = CHAT | {"messages": [{"role": "user", "content": "x", "reasoning": "z"}]}
    assert parse_chat(json.dumps(body).encode()).said() == [("user", "x")]
