"""The fields of OpenAI's requests and of vLLM's: which are applied, which change no answer, and which are refused.

A field that is ignored although it would change the answer gives a wrong answer that nobody notices. So whatever is not
applied or harmless is refused by name, also what nobody has heard of. A field that asks for nothing, such as `n: 1`, is
no reason to refuse, and neither is null: that is how many clients write that a field is absent.
"""

from collections.abc import Mapping
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
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "prediction", "parallel_tool_calls", "priority", "request_id", "cache_salt", "include_reasoning",
    "spaces_between_special_tokens",
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
    "allowed_token_ids": (),
    "bad_words": ([],),
    "logits_processors": ([],),
    "return_tokens_as_token_ids": (False,),
    "return_token_ids": (False,),
    "structured_outputs": (),
    "structural_tag": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_decoding_backend": (),
    "guided_whitespace_pattern": (),
    "kv_transfer_params": (),
    "vllm_xargs": ({},),
    "prompt_embeds": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "documents": ([],),
    "mm_processor_kwargs": ({},),
    "thinking_token_budget": (),
}

#: The same for completions only: a text is read after the token that begins a document, chats as their template says.
_ALSO: Mapping[Endpoint, Mapping[str, tuple[Any, ...]]] = {
    "completions": {"add_special_tokens": (True,)},
    "chat/completions": {"add_special_tokens": (False,), "echo": (False,), "prompt_logprobs": ()},
}

#: The fields of a message: those that servers read, and a name or an earlier refusal, which is in no prompt of ours.
_MESSAGE_KNOWN = frozenset({"role", "content", "reasoning_content", "reasoning", "name", "refusal"})
_MESSAGE_REFUSED: Mapping[str, tuple[Any, ...]] = {"tool_calls": ([],)}


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
    messages = body.get("messages")
    for at, message in enumerate(messages if isinstance(messages, list) else ()):
        for name, value in message.items() if isinstance(message, dict) else ():
            if name not in _MESSAGE_KNOWN:
                _check(f"messages.{at}.{name}", value, _MESSAGE_REFUSED.get(name), "messages")


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
