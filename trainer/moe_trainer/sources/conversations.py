"""Conversations in records: a list of messages, each with a role and its words.

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}

Chat templates refuse, or silently reorder, messages whose roles do not alternate; so this is checked here, before
anyone pays for a GPU. The rule: optionally a system message, then user and assistant in turn, beginning with the user,
with at least one answer; every message has text.

Besides role and content, an answer may have a ``weight``, as in OpenAI's files for fine-tuning: 0 says that it is read but
not learnt. It may also have thoughts in a field of their own. A message with tool calls is refused, because a model that
learns its words alone learns to end where it should have called. All other fields are passed over and counted.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from moe_trainer.sources.faults import UnusableError
from moe_trainer.text.content import Content, Role

#: The roles of messages.
ROLES: tuple[Role, ...] = ("system", "user", "assistant")

#: Names of the field with an answer's thoughts. Of several, the first that has any is read.
THOUGHTS = ("reasoning_content", "reasoning", "thinking")

#: Fields with tool calls, in today's form and in the one before.
_CALLS = ("tool_calls", "function_call")
#: Most different names of fields that are counted, and their longest name. What is beyond is counted together.
_NAMES, _NAME_CHARACTERS = 32, 40
_OTHERS = "others"


class _Message(NamedTuple):
    role: Role
    words: str
    learnt: bool = True  #: Whether it is learnt, if it is an answer.
    thoughts: str = ""


def parse_conversation(
    messages: Sequence[object],
    field: str,
    passed_over: Counter[str] | None = None,
    *,
    thoughts: bool = False,
) -> Content:
    """Return the conversation in the messages of a record; raises UnusableError that names the message.

    Fields of messages that are passed over are added to ``passed_over`` by name. Those with thoughts are only read if
    ``thoughts`` says so.
    """
    read = [
        _message(message, f"{field}[{number}]", with_thoughts=thoughts)
        for number, message in enumerate(messages)
    ]
    first = 1 if read and read[0].role == "system" else 0
    for number, role in enumerate(message.role for message in read[first:]):
        expected = "assistant" if number % 2 else "user"
        if role != expected:
            raise UnusableError(
                "brokenMessages",
                f"{field}[{number + first}] has role {role}, but {expected} is expected: a system message may come first, then "
                "user and assistant take turns",
            )
    answers = [message for message in read if message.role == "assistant"]
    if not answers:
        raise UnusableError(
            "noAnswer", f"{field} has no message of role assistant, so there is nothing to learn from"
        )
    if not any(message.learnt for message in answers):
        raise UnusableError(
            "noAnswer",
            f"every message of role assistant in {field} has weight 0, so there is nothing to learn from",
        )
    if passed_over is not None:
        _count_others(messages, passed_over, THOUGHTS if thoughts else ())
    return _content(read)


def _content(read: Sequence[_Message]) -> Content:
    said: list[tuple[Role, str]] = []
    unlearnt: set[int] = set()
    for message in read:
        if message.thoughts:
            said.append(("thoughts", message.thoughts))
        if not message.learnt:
            unlearnt.add(len(said))
        said.append((message.role, message.words))
    return Content.of_turns(said, unlearnt)


def _message(message: object, where: str, *, with_thoughts: bool) -> _Message:
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
    if role != "assistant":
        return _Message(role, words)
    return _Message(
        role, words, _is_learnt(message, where), _thoughts(message, where) if with_thoughts else ""
    )


def _thoughts(message: Mapping[str, Any], where: str) -> str:
    """Return an answer's thoughts, empty if it has none."""
    name = next((name for name in THOUGHTS if message.get(name) is not None), None)
    if name is None:
        return ""
    thoughts = message[name]
    if not isinstance(thoughts, str):
        raise UnusableError(
            "brokenMessages", f"{where} has {name} that is no text: make it a text, or leave it out"
        )
    return thoughts if thoughts.strip() else ""


def _is_learnt(message: Mapping[str, Any], where: str) -> bool:
    weight = message.get("weight")
    if weight is None:
        return True
    if type(weight) not in (int, float) or weight not in (0, 1):
        raise UnusableError("brokenMessages", f"{where} has weight {weight!r:.40}: it must be 0 or 1")
    return bool(weight)


def _count_others(messages: Sequence[object], passed_over: Counter[str], of_answers: Sequence[str]) -> None:
    """Count the fields of messages that nothing reads; those without a value do not count."""
    for message in messages:
        assert isinstance(message, dict)
        read = {"role", "content", *(("weight", *of_answers) if message["role"] == "assistant" else ())}
        for name, value in message.items():
            if name not in read and value not in (None, "", [], {}):
                known = len(name) <= _NAME_CHARACTERS and (name in passed_over or len(passed_over) < _NAMES)
                passed_over[name if known else _OTHERS] += 1
