"""The part of the OpenAI API that the gateway reads: the few fields that routing and limits need, and errors.

Everything else in a request is passed on unchanged.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    ValidationError,
)

from moe_formats.routing_policy import Limits
from moe_web import bounded_json, openai_fields

Endpoint = Literal["completions", "chat/completions", "route"]


class ApiError(Exception):
    """An error answer in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        may_retry: bool = True,
    ) -> None:
        """Describe what is wrong; `param` names the field, if it is a field.

        Without `may_retry` OpenAI's clients are asked not to send the request again by themselves.
        """
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.code = code or kind
        self.headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
        if not may_retry:
            self.headers["x-should-retry"] = "false"

    def response(self) -> web.Response:
        """Return the HTTP answer."""
        return web.json_response(self.body, status=self.status, headers=self.headers)


@dataclass(frozen=True)
class Call:
    """One request, as far as routing needs to understand it.

    `text` is what the request is routed by: the prompt, or what the user says in a chat. `messages` are the roles and
    texts of a chat, and `turns` is the number of messages of the user. `body` is passed on to the Expert.
    """

    model: str
    text: str | None
    messages: tuple[tuple[str, str], ...]
    turns: int
    user: str | None
    stream: bool
    body: dict[str, Any]

    def body_for(self, model: str) -> bytes:
        """Return the body for an Expert's server, with `model` set to the name that the server knows."""
        return json.dumps(self.body | {"model": model}, ensure_ascii=False).encode("utf-8", "replace")


# Lists end at their first error, and the kind of a value is decided by its first element before anything is validated:
# an error object for each element and each branch of a union would take a thousand times the body's memory.


def _kind_of_prompt(value: object) -> str | None:
    if isinstance(value, list):
        first = value[0] if value else ""
        if isinstance(first, list):
            return "many_ids"
        return "many" if isinstance(first, str) else "ids" if type(first) is int else None
    return "one" if isinstance(value, str) else None


def _kind_of_content(value: object) -> str | None:
    return "said" if isinstance(value, str) else "parts" if isinstance(value, list) else None


_Ids = Annotated[list[StrictInt], Field(fail_fast=True)]
_Prompt = Annotated[
    Annotated[StrictStr, Tag("one")]
    | Annotated[list[StrictStr], Field(fail_fast=True), Tag("many")]
    | Annotated[_Ids, Tag("ids")]
    | Annotated[list[_Ids], Field(fail_fast=True), Tag("many_ids")],
    Discriminator(
        _kind_of_prompt,
        custom_error_type="prompt",
        custom_error_message="give a text, a list of texts, a list of token ids, or a list of such lists",
    ),
]


class _Part(BaseModel):
    type: StrictStr
    text: StrictStr | None = None


_Content = Annotated[
    Annotated[StrictStr, Tag("said")] | Annotated[list[_Part], Field(fail_fast=True), Tag("parts")],
    Discriminator(
        _kind_of_content, custom_error_type="content", custom_error_message="give a text, or a list of parts"
    ),
]


class _Message(BaseModel):
    role: StrictStr
    content: _Content | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""


class _Fields(BaseModel):
    """The fields that the gateway reads, for all endpoints together."""

    model: StrictStr = ""
    prompt: _Prompt | None = None
    messages: Annotated[list[_Message], Field(fail_fast=True, min_length=1)] | None = None
    max_tokens: StrictInt | None = Field(default=None, ge=0)
    max_completion_tokens: StrictInt | None = Field(default=None, ge=0)
    stream: StrictBool | None = None
    user: StrictStr | None = None


def parse_call(endpoint: Endpoint, data: bytes, limits: Limits) -> Call:
    """Return the call in a request's body; raises ApiError (400) naming the field that is wrong."""
    body = _json_object(data)
    try:
        fields = _Fields.model_validate(openai_fields.without_nulls(body))
    except ValidationError as error:
        raise _bad_field(error) from None
    _check_required(endpoint, fields)
    if endpoint != "route":
        try:
            openai_fields.check(endpoint, openai_fields.without_nulls(body))
        except openai_fields.FieldRefused as error:
            raise ApiError(400, str(error), param=error.field, code="unsupported_parameter") from None
    for name in ("max_tokens", "max_completion_tokens"):
        asked = getattr(fields, name)
        if asked is not None and asked > limits.max_tokens:
            raise ApiError(
                400, f"{name} is {asked}; this gateway allows at most {limits.max_tokens}", param=name
            )
    said = [message.text() for message in fields.messages or () if message.role == "user"]
    return Call(
        model=fields.model,
        text=_routed_text(fields, said),
        messages=tuple((message.role, message.text()) for message in fields.messages or ()),
        turns=len(said),
        user=fields.user,
        stream=bool(fields.stream),
        body=body,
    )


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        body = bounded_json.parse(data)
    except bounded_json.JsonError as error:
        raise ApiError(400, f"the body is not JSON that can be read: {error}") from None
    if not isinstance(body, dict):
        raise ApiError(400, f"the body must be a JSON object, not {type(body).__name__}")
    return body


def _check_required(endpoint: Endpoint, fields: _Fields) -> None:
    if endpoint != "route" and not fields.model:
        raise ApiError(
            400,
            "model is missing: give the pool's name to be routed, or an Expert's name to pin it",
            param="model",
        )
    if endpoint == "completions" and fields.prompt is None:
        raise ApiError(400, "prompt is missing: give a string or a list of strings", param="prompt")
    if endpoint == "chat/completions" and fields.messages is None:
        raise ApiError(400, "messages is missing: give a list of {role, content}", param="messages")
    if endpoint == "route" and fields.prompt is None and fields.messages is None:
        raise ApiError(
            400, "prompt or messages is missing: give the text that should be routed", param="prompt"
        )


def _routed_text(fields: _Fields, said: list[str]) -> str | None:
    """Return the text to route by; None for a prompt of token ids, which can only go to a pinned Expert."""
    if fields.messages is not None:
        return "\n".join(said or [message.text() for message in fields.messages])
    if isinstance(fields.prompt, str):
        return fields.prompt
    texts = [part for part in fields.prompt or () if isinstance(part, str)]
    return "\n".join(texts) if len(texts) == len(fields.prompt or ()) else None


def _bad_field(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_input=False)[0]
    # The location also contains the kinds of prompts and contents; a client knows only its own fields.
    path = [str(part) for part in first["loc"] if isinstance(part, int) or part in _FIELD_NAMES]
    what = "Input should be an object" if first["type"] == "model_type" else first["msg"]
    return ApiError(400, f"{'.'.join(path)}: {what}", param=path[0])


_FIELD_NAMES = {*_Fields.model_fields, *_Message.model_fields, *_Part.model_fields}
