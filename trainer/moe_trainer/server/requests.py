"""OpenAI's requests as this server understands them; unsupported fields are refused by name, not ignored."""

from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    ValidationError,
)

from moe_trainer.models.generation_config import DEFAULT_TEMPERATURE
from moe_trainer.server.sampling import Sampling
from moe_trainer.text.content import Role
from moe_trainer.text.tokenizer import PromptReader
from moe_web import bounded_json, openai_fields
from moe_web.validation import PROMPT_KIND, first_error, text_or_list

#: The number of tokens to generate if a completion request does not say (OpenAI's default).
DEFAULT_MAX_TOKENS = 16

#: At lower temperatures the most probable token is taken, since dividing by less would overflow.
SMALLEST_TEMPERATURE = 0.001

_Count = Annotated[int, Field(strict=True, ge=0)]
_Stop = Annotated[StrictStr, Field(min_length=1, max_length=256)]


#: Most prompts in one request.
MAX_PROMPTS = 64

_Ids = Annotated[list[_Count], Field(min_length=1, fail_fast=True)]
_Prompt = Annotated[
    Annotated[StrictStr, Tag("one")]
    | Annotated[list[StrictStr], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True), Tag("many")]
    | Annotated[_Ids, Tag("ids")]
    | Annotated[list[_Ids], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True), Tag("many_ids")],
    PROMPT_KIND,
]
_Stops = Annotated[
    Annotated[_Stop, Tag("one")] | Annotated[list[_Stop], Field(fail_fast=True), Tag("many")],
    text_or_list("texts"),
]


class BadRequest(Exception):
    """A request that cannot be served; `param` names the field."""

    def __init__(
        self, message: str, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        """Take what is wrong with the request and how to correct it."""
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": _type_of(status), "param": param, "code": code}}


def _type_of(status: int) -> str:
    """Return the kind of an error in OpenAI's words: only with the first one is the request itself at fault."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    return "rate_limit_error" if status == HTTPStatus.TOO_MANY_REQUESTS else "invalid_request_error"


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    include_usage: StrictBool = False


class _Request(BaseModel):
    """The fields that completion and chat requests share."""

    model: StrictStr
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: StrictInt | None = None
    stop: _Stops | None = None
    stream: StrictBool = False
    stream_options: StreamOptions | None = None

    def sampling(self, default: float = DEFAULT_TEMPERATURE) -> Sampling:
        """Return how tokens are chosen; ``default`` is the temperature if the request has none."""
        seed = None if self.seed is None else self.seed % (1 << 63)
        temperature = default if self.temperature is None else self.temperature
        temperature = temperature if temperature >= SMALLEST_TEMPERATURE else 0.0
        return Sampling(temperature, self.top_p, seed)

    def stops(self) -> tuple[str, ...]:
        """Return the stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def usage_in_stream(self) -> bool:
        """Return whether a stream ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(_Request):
    """POST /v1/completions. With `echo`, `max_tokens` 0 and `logprobs` it scores a prompt."""

    prompt: _Prompt
    max_tokens: _Count | None = DEFAULT_MAX_TOKENS
    logprobs: Annotated[int, Field(strict=True, ge=0, le=20)] | None = None
    prompt_logprobs: Annotated[int, Field(strict=True, ge=0, le=20)] | None = None
    echo: StrictBool = False

    @property
    def gives_ids(self) -> bool:
        """Return whether the prompts are token ids. They are literal: no token is added at their beginning."""
        first = self.prompt if isinstance(self.prompt, str) else self.prompt[0]
        return not isinstance(first, str)

    def prompts(self, reader: PromptReader, vocab_size: int) -> list[list[int]]:
        """Return the token ids of every prompt; raises BadRequest for ids outside the vocabulary."""
        many: list[Any] = (
            [self.prompt] if isinstance(self.prompt, str) or _is_ids(self.prompt) else self.prompt
        )
        prompts = [reader.encode(one) if isinstance(one, str) else list(one) for one in many]
        for token in (token for prompt in prompts for token in prompt):
            if token >= vocab_size:
                raise BadRequest(
                    f"prompt: token {token} must be below the vocabulary's size, {vocab_size}",
                    "prompt",
                )
        return prompts


class _Part(BaseModel):
    type: Literal["text"]
    text: StrictStr


_Content = Annotated[
    Annotated[StrictStr, Tag("one")] | Annotated[list[_Part], Field(fail_fast=True), Tag("many")],
    text_or_list("parts of text"),
]


class Message(BaseModel):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: _Content
    reasoning_content: StrictStr | None = None
    reasoning: StrictStr | None = None

    def thoughts(self) -> str:
        """Return the thoughts of an earlier answer; empty if it comes without."""
        given = self.reasoning_content if self.reasoning_content is not None else self.reasoning
        return given if given and given.strip() and self.role == "assistant" else ""

    def text(self) -> str:
        """Return the message's text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatRequest(_Request):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1024, fail_fast=True)]
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    logprobs: StrictBool | None = False
    top_logprobs: Annotated[int, Field(strict=True, ge=0, le=20)] | None = None

    def said(self) -> list[tuple[Role, str]]:
        """Return who said what, and the thoughts before an answer; the role developer counts as system."""
        said: list[tuple[Role, str]] = []
        for message in self.messages:
            if thoughts := message.thoughts():
                said.append(("thoughts", thoughts))
            said.append(("system" if message.role == "developer" else message.role, message.text()))
        return said

    def wanted_tokens(self) -> int | None:
        """Return the most tokens to generate; None for as many as fit."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


def parse_completion(data: bytes) -> CompletionRequest:
    """Return the completion request in a body; raises BadRequest, which names the field."""
    return _parse(CompletionRequest, "completions", data)


def parse_chat(data: bytes) -> ChatRequest:
    """Return the chat request in a body; raises BadRequest, which names the field."""
    return _parse(ChatRequest, "chat/completions", data)


_Asked = TypeVar("_Asked", bound=_Request)


def _parse(kind: type[_Asked], endpoint: openai_fields.Endpoint, data: bytes) -> _Asked:
    body = _json_object(data)
    try:
        request = kind.model_validate(body)
        openai_fields.check(endpoint, body)
    except ValidationError as error:
        field, message = first_error(error, _MODELS)
        raise BadRequest(message, field) from None
    except openai_fields.FieldRefused as error:
        raise BadRequest(str(error), error.field, "unsupported_parameter") from None
    return request


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        return openai_fields.without_nulls(bounded_json.parse_object(data))
    except bounded_json.JsonError as error:
        raise BadRequest(f"the body is not JSON that can be read: {error}") from None


def _is_ids(prompt: object) -> bool:
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], int)


_MODELS = (CompletionRequest, ChatRequest, Message, _Part, StreamOptions)
