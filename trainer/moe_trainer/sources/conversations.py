"""Conversations in records: a list of messages, each with a role and its words.

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}

Chat templates refuse, or silently reorder, messages whose roles do not alternate; so this is checked here, before
anyone pays for a GPU. The rule: optionally a system message, then user and assistant in turn, beginning with the user,
with at least one answer; every message has text.
"""

from collections.abc import Sequence
from typing import get_args

from moe_trainer.sources.faults import UnusableError
from moe_trainer.text.content import Content, Role

ROLES: tuple[Role, ...] = get_args(Role)


def parse_conversation(messages: Sequence[object], field: str) -> Content:
    """Return the conversation in the messages of a record; raises UnusableError that names the message."""
    said = [_message(message, f"{field}[{number}]") for number, message in enumerate(messages)]
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
    return Content.of_turns(said)


def _message(message: object, where: str) -> tuple[Role, str]:
    if not isinstance(message, dict):
        raise UnusableError("brokenMessages", f"{where} is not an object with role and content")
    role = next((role for role in ROLES if role == message.get("role")), None)
    if role is None:
        given = f"has role {message['role']!r:.40}" if "role" in message else "has no role"
        raise UnusableError("brokenMessages", f"{where} {given}: the role must be one of {', '.join(ROLES)}")
    words = message.get("content")
    if not isinstance(words, str) or not words.strip():
        given = "empty content" if isinstance(words, str) else "no content that is text"
        raise UnusableError("brokenMessages", f"{where} has {given}")
    return role, words
