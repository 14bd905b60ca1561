"""Conversations in records: a list of messages, each with a role and its words.

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}

Chat templates refuse, or silently reorder, messages whose roles do not alternate; so this is checked here, before
anyone pays for a GPU. The rule: optionally a system message, then user and assistant in turn, beginning with the user,
with at least one answer; every message has text.

Besides role and content, an answer may have a ``weight``, as in OpenAI's files for fine-tuning: 0 says that it is read but
not learnt. A message with tool calls is refused, because a model that learns its words alone learns to end where it should
have called. All other fields are passed over and counted.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from moe_trainer.sources.faults import UnusableError
from moe_trainer.text.content import Content, Role

ROLES: tuple[Role, ...] = get_args(Role)

#: Fields with tool calls, in today's form and in the one before.
_CALLS = ("tool_calls", "function_call")
#: Most different names of fields that are counted, and their longest name. What is beyond is counted together.
_NAMES, _NAME_CHARACTERS = 32, 40
_OTHERS = "others"


def parse_conversation(
    messages: Sequence[object], field: str, passed_over: Counter[str] | None = None
) -> Content:
    """Return the conversation in the messages of a record; raises UnusableError that names the message.

    Fields of messages that are passed over are added to ``passed_over`` by name.
    """
    read = [_message(message, f"{field}[{number}]") for number, message in enumerate(messages)]
    said = [(role, words) for role, words, _ in read]
    first = 1 if said and said[0][0] == "system" else 0
    for number, (role, _) in enumerate(said[first:]):
        expected = "assistant" if number % 2 else "user"
        if role != expected:
            raise UnusableError(
                "brokenMessages",
                f"{field}[{number + first}] has role {role}, but {expected} is expected: a system message may come first, then "
                "user and assistant take turns",
            )
    if not any(role == "assistant" for role, _ in said):
        raise UnusableError(
            "noAnswer", f"{field} has no message of role assistant, so there is nothing to learn from"
        )
    if not any(learnt for role, _, learnt in read if role == "assistant"):
        raise UnusableError(
            "noAnswer",
            f"every message of role assistant in {field} has weight 0, so there is nothing to learn from",
        )
    if passed_over is not None:
        _count_others(messages, passed_over)
    return Content.of_turns(said, {number for number, (_, _, learnt) in enumerate(read) if not learnt})


def _message(message: object, where: str) -> tuple[Role, str, bool]:
    """Return a message's role, its words, and whether it is learnt if it is an answer."""
    if not isinstance(message, dict):
        raise UnusableError("brokenMessages", f"{where} is not an object with role and content")
    role = next((role for role in ROLES if role == message.get("role")), None)
    if role is None:
        given = f"has role {message['role']!r:.40}" if "role" in message else "has no role"
        raise UnusableError("brokenMessages", f"{where} {given}: the role must be one of {', '.join(ROLES)}")
    for name in _CALLS:
        if message.get(name):
            raise UnusableError(
                "toolCalls",
                f"{where} has {name}, which cannot be learnt: leave out conversations with tool calls",
            )
    words = message.get("content")
    if not isinstance(words, str) or not words.strip():
        given = "empty content" if isinstance(words, str) else "no content that is text"
        raise UnusableError("brokenMessages", f"{where} has {given}")
    return role, words, role != "assistant" or _is_learnt(message, where)


def _is_learnt(message: Mapping[str, Any], where: str) -> bool:
    weight = message.get("weight")
    if weight is None:
        return True
    if type(weight) not in (int, float) or weight not in (0, 1):
        raise UnusableError("brokenMessages", f"{where} has weight {weight!r:.40}: it must be 0 or 1")
    return bool(weight)


def _count_others(messages: Sequence[object], passed_over: Counter[str]) -> None:
    """Count the fields of messages that nothing reads; those without a value do not count."""
    for message in messages:
        assert isinstance(message, dict)
        read = {"role", "content", *(("weight",) if message["role"] == "assistant" else ())}
        for name, value in message.items():
            if name not in read and value not in (None, "", [], {}):
                known = len(name) <= _NAME_CHARACTERS and (name in passed_over or len(passed_over) < _NAMES)
                passed_over[name if known else _OTHERS] += 1
