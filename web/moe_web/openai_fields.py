"""The fields of OpenAI's requests and of vLLM's: which are applied, which change no answer, and which are refused.

A field that is ignored although it would change the answer gives a wrong answer that nobody notices. So whatever is not
applied or harmless is refused by name, also what nobody has heard of. A field that asks for nothing, such as `n: 1`, is
no reason to refuse, and neither is null: that is how many clients write that a field is absent.

The same holds for the fields of the objects in a request: messages, the parts of their contents, and the options of streams.
`make clients` compares the table with the types of OpenAI's client.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Endpoint = Literal["completions", "chat/completions"]

_BOTH = {
    "model", "max_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options", "logprobs"
}  # fmt: skip
#: The fields that servers act on.
APPLIED: Mapping[Endpoint, frozenset[str]] = {
    "completions": frozenset(_BOTH | {"prompt", "prompt_logprobs", "echo"}),
    "chat/completions": frozenset(_BOTH | {"messages", "max_completion_tokens", "top_logprobs"}),
}

#: The fields that change no answer: they are about accounts, storage, priority, or how fast it is computed.
HARMLESS = frozenset({
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "prediction", "parallel_tool_calls", "priority", "request_id", "session_id", "cache_salt",
    "include_reasoning", "spaces_between_special_tokens", "stream_interval",
})  # fmt: skip

#: The fields that would change the answer in a way that servers do not know, with the values that ask for nothing.
REFUSED: Mapping[str, tuple[Any, ...]] = {
    # OpenAI's
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
    "moderation": (),
    # vLLM's
    "use_beam_search": (False,),
    "top_k": (0, -1),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "ignore_eos": (False,),
    "min_tokens": (0,),
    "skip_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "truncation_side": (),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "logits_processors": ([],),
    "return_tokens_as_token_ids": (False,),
    "return_token_ids": (False,),
    "return_token_offsets": (False,),
    "return_prompt_text": (False,),
    "return_mm_kwargs": (True,),
    "logprob_token_ids": (),
    "routed_experts_prompt_start": (0,),
    "repetition_detection": (),
    "watermarking": (False,),
    "structured_outputs": (),
    "structural_tag": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_decoding_backend": (),
    "guided_whitespace_pattern": (),
    "kv_transfer_params": (),
    "ec_transfer_params": (),
    "vllm_xargs": ({},),
    "prompt_embeds": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "documents": ([],),
    "mm_processor_kwargs": ({},),
    "media_io_kwargs": ({},),
    "thinking_token_budget": (),
}

#: The same for completions only: a text is read after the token that begins a document, chats as their template says.
_ALSO: Mapping[Endpoint, Mapping[str, tuple[Any, ...]]] = {
    "completions": {"add_special_tokens": (True,)},
    "chat/completions": {"add_special_tokens": (False,), "echo": (False,), "prompt_logprobs": ()},
}


@dataclass(frozen=True)
class _Fields:
    """The fields of an object inside a request: those that are read or harmless, and those that are refused."""

    known: frozenset[str]
    refused: Mapping[str, tuple[Any, ...]]


_STREAM_OPTIONS = _Fields(
    frozenset({"include_usage"}),
    # Padding against eavesdroppers who learn from sizes: who asks for it must not believe that it is there.
    {"include_obfuscation": (False,), "continuous_usage_stats": (False,)},
)
#: A name or an earlier refusal is in no prompt of ours; lm-evaluation-harness gives each message a type.
_MESSAGE = _Fields(
    frozenset({"role", "content", "reasoning_content", "reasoning", "name", "refusal", "type"}),
    {
        "tool_calls": ([],),
        "tool_call_id": (),
        "function_call": (),
        "audio": (),
        "annotations": ([],),
    },
)
_PART = _Fields(
    frozenset({"type", "text", "prompt_cache_breakpoint", "cache_control"}),
    {"image_url": (), "input_audio": (), "file": (), "refusal": (), "video_url": (), "audio_url": ()},
)


class FieldRefused(ValueError):
    """A request has a field that would change its answer, and that no server applies; `field` names it."""

    def __init__(self, field: str, message: str) -> None:
        """Take the field of the request, and what is wrong with it."""
        super().__init__(message)
        self.field = field


def without_nulls(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without the fields that are null, in the objects and messages inside it too."""
    return {name: _without(value) for name, value in body.items() if value is not None}


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return without_nulls(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_without(item) for item in value]
    return value


def check(endpoint: Endpoint, body: Mapping[str, Any]) -> None:
    """Raise FieldRefused for the first field of a body (without nulls) that is neither applied nor harmless."""
    known = APPLIED[endpoint] | HARMLESS
    for name, value in body.items():
        if name not in known:
            _check(name, value, _ALSO[endpoint].get(name, REFUSED.get(name)), name)
    _check_object("stream_options", body.get("stream_options"), _STREAM_OPTIONS)
    for at, message in _numbered(body.get("messages")):
        _check_object(f"messages.{at}", message, _MESSAGE)
        for number, part in _numbered(message.get("content") if isinstance(message, dict) else None):
            _check_object(f"messages.{at}.content.{number}", part, _PART)


def _numbered(value: Any) -> Iterable[tuple[int, Any]]:
    return enumerate(value) if isinstance(value, list) else ()


def _check_object(path: str, value: Any, fields: _Fields) -> None:
    for name, inner in value.items() if isinstance(value, dict) else ():
        if name not in fields.known:
            _check(f"{path}.{name}", inner, fields.refused.get(name), path.partition(".")[0])


def _check(path: str, value: Any, neutral: tuple[Any, ...] | None, field: str) -> None:
    if neutral is None:
        raise FieldRefused(field, f"{path}: this API has no such field, so it would be ignored. Leave it out")
    if any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral):
        return
    allowed = f", or send {' or '.join(map(repr, neutral))}" if neutral else ""
    raise FieldRefused(
        field,
        f"{path}: it is not supported here, and ignoring it would change the answer. Leave it out{allowed}",
    )
