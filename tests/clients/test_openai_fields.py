"""The table of fields knows every field of the installed client's types, down to messages, parts and options."""

import sys
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
from openai.types import completion_create_params
from openai.types.chat import (
    ChatCompletionContentPartParam,
    ChatCompletionMessageParam,
    ChatCompletionStreamOptionsParam,
)
from openai.types.chat import (
    completion_create_params as chat_create_params,
)

from .conftest import HERE

sys.path.insert(0, str(HERE.parents[1] / "web"))
from moe_web import openai_fields

#: What the message says of a field that the table does not have.
UNKNOWN = "this API has no such field"


def _fields(kind: Any) -> Iterator[str]:
    """Yield the fields of a TypedDict, or of each one in a union."""
    for one in get_args(kind) or (kind,):
        yield from get_type_hints(one)


def _unknown(endpoint: openai_fields.Endpoint, body: dict[str, Any]) -> bool:
    try:
        openai_fields.check(endpoint, body)
    except openai_fields.FieldRefused as error:
        return UNKNOWN in str(error)
    return False


PLACES = {
    "completions": completion_create_params.CompletionCreateParamsBase,
    "chat/completions": chat_create_params.CompletionCreateParamsBase,
}


@pytest.mark.parametrize("endpoint", PLACES)
def test_every_parameter_of_the_client_is_known(endpoint: openai_fields.Endpoint) -> None:
    fields = {*_fields(PLACES[endpoint]), "stream"}
    assert len(fields) > 15
    assert [name for name in sorted(fields) if _unknown(endpoint, {name: object()})] == []


def test_every_option_of_streams_and_every_field_of_messages_and_parts_is_known() -> None:
    options = set(_fields(ChatCompletionStreamOptionsParam))
    assert "include_usage" in options
    assert [name for name in options if _unknown("completions", {"stream_options": {name: object()}})] == []
    messages = set(_fields(ChatCompletionMessageParam))
    assert "tool_calls" in messages
    assert [name for name in messages if _unknown("chat/completions", {"messages": [{name: object()}]})] == []
    parts = set(_fields(ChatCompletionContentPartParam))
    assert "image_url" in parts
    said = [{"messages": [{"role": "user", "content": [{name: object()}]}]} for name in parts]
    assert [body for body in said if _unknown("chat/completions", body)] == []


def test_a_field_that_nobody_has_is_unknown_wherever_it_is() -> None:
    for body in (
        {"sage": 1},
        {"stream_options": {"sage": 1}},
        {"messages": [{"sage": 1}]},
        {"messages": [{"role": "user", "content": [{"sage": 1}]}]},
    ):
        assert _unknown("chat/completions", body)
