"""The part of the OpenAI API that the gateway reads: the few fields that routing and limits need, and errors.

Everything else in a request is passed on unchanged.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import (
    BaseModel,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    ValidationError,
)

from moe_formats.routing_policy import Limits
from moe_web import bounded_json, openai_fields
from moe_web.validation import PROMPT_KIND, first_error, text_or_list

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


_Ids = Annotated[list[StrictInt], Field(fail_fast=True)]
_Prompt = Annotated[
    Annotated[StrictStr, Tag("one")]
    | Annotated[list[StrictStr], Field(fail_fast=True), Tag("many")]
    | Annotated[_Ids, Tag("ids")]
    | Annotated[list[_Ids], Field(fail_fast=True), Tag("many_ids")],
    PROMPT_KIND,
]


class _Part(BaseModel):
    type: StrictStr
    text: StrictStr | None = None


_Content = Annotated[
    Annotated[StrictStr, Tag("one")] | Annotated[list[_Part], Field(fail_fast=True), Tag("many")],
    text_or_list("parts"),
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
    given = openai_fields.without_nulls(body)
    try:
        fields = _Fields.model_validate(given)
    except ValidationError as error:
        field, message = first_error(error, (_Fields, _Message, _Part))
        raise ApiError(400, message, param=field) from None
    _check_required(endpoint, fields)
    if endpoint != "route":
        try:
            openai_fields.check(endpoint, given)
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
        return bounded_json.parse_object(data)
    except bounded_json.JsonError as error:
        raise ApiError(400, f"the body is not JSON that can be read: {error}") from None


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
