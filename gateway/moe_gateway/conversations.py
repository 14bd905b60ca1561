"""Keeps a conversation with the Expert that answered it, unless another one is clearly better.

A chat is recognised by everything that was said in it before: its next turn has all messages of the turn before, and then
an answer and something new. So a turn is remembered under all of its messages, and looked up under those before the
last answer. People who begin with the same words part as soon as one of them says something else, and callers with
different API keys never meet.

The memory is bounded and is lost on restart; then conversations are routed anew, and the worst that can happen is
that one changes its Expert. Only hashes of prompts are kept.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from moe_gateway.decision import Decision
from moe_gateway.openai import Call

#: Turns that are remembered; the least recently used one is forgotten first.
MAX_CONVERSATIONS = 10_000


@dataclass(frozen=True)
class Conversation:
    """Where a turn of a conversation is remembered, and where the turn before it was; None if it is the first one."""

    turn: str
    before: str | None


def conversation_of(call: Call, header: str | None, caller: str | None = None) -> Conversation | None:
    """Return the conversation that a call belongs to, or None: a plain completion has only the header.

    `header` is the client's own id of the conversation, which then is all that it is recognised by. `caller` is who asks.
    """
    if header:
        key = _key(caller, "id", header)
        return Conversation(key, None if call.turns == 1 else key)
    if not call.messages:
        return None
    answers = [index for index, (role, _) in enumerate(call.messages) if role == "assistant"]
    before = call.messages[: answers[-1]] if answers else ()
    said = _key(caller, "said", call.user, *_flat(call.messages))
    return Conversation(said, _key(caller, "said", call.user, *_flat(before)) if before else None)


def _flat(messages: Sequence[tuple[str, str]]) -> Iterator[str]:
    for message in messages:
        yield from message


def _key(*parts: str | None) -> str:
    """Return a hash of texts; where one ends and the next begins is part of it."""
    text = json.dumps(parts, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


class Conversations:
    """Remembers which Expert answered each conversation last."""

    def __init__(self, capacity: int = MAX_CONVERSATIONS) -> None:
        """Remember at most `capacity` turns."""
        self._capacity = capacity
        self._experts: OrderedDict[str, str] = OrderedDict()

    def settle(
        self, conversation: Conversation | None, decision: Decision, *, margin: float, serving: set[str]
    ) -> Decision:
        """Return the decision, changed to the conversation's own Expert unless another leads it by more than `margin`.

        An earlier Expert does not count that is not in `serving`. A fallback has no probabilities and never moves a
        conversation.
        """
        if conversation is None:
            return decision
        before = self._experts.get(conversation.before) if conversation.before is not None else None
        if before is not None and before in serving and before != decision.expert:
            decision = _stay(before, decision, margin)
        self._experts[conversation.turn] = decision.expert
        self._experts.move_to_end(conversation.turn)
        if len(self._experts) > self._capacity:
            self._experts.popitem(last=False)
        return decision


def _stay(before: str, decision: Decision, margin: float) -> Decision:
    if not decision.probabilities:
        return replace(
            decision,
            expert=before,
            strategy="Conversation",
            why=f"it stays with {before}: {decision.why}",
        )
    lead = decision.probabilities[decision.expert] - decision.probabilities.get(before, 0.0)
    if lead > margin:
        why = f"{decision.why}; it leads {before}, which answered before, by {lead:.2f}, above the margin of {margin:g}"
        return replace(decision, why=why)
    why = f"it stays with {before}: {decision.expert} leads by {lead:.2f}, not above the margin of {margin:g}"
    return replace(
        decision,
        expert=before,
        strategy="Conversation",
        why=why,
        confidence=decision.probabilities.get(before),
    )
