"""A conversation stays with the Expert that answered it, unless another is clearly better.

Bounded and in memory: a gateway that restarts routes a conversation afresh, which costs a change of
Expert at worst. Only hashes of prompts are kept.
"""

import hashlib
from collections import OrderedDict
from dataclasses import replace

from moe_gateway.decision import Decision
from moe_gateway.openai import Call

#: Conversations remembered; the one unused for longest is forgotten first.
MAX_CONVERSATIONS = 10_000


def conversation_of(call: Call, header: str | None) -> str | None:
    """Return the key of the conversation a call belongs to: the client's own id, else its beginning.

    A chat is recognised by its first user message and its `user`; a plain completion only by the header.
    """
    if header:
        identity = f"id\0{header}"
    elif call.opening is not None:
        identity = f"opening\0{call.user or ''}\0{call.opening}"
    else:
        return None
    return hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=16).hexdigest()


class Conversations:
    """Which Expert answered each conversation last."""

    def __init__(self, capacity: int = MAX_CONVERSATIONS) -> None:
        """Remember at most `capacity` conversations."""
        self._capacity = capacity
        self._experts: OrderedDict[str, str] = OrderedDict()

    def settle(
        self, key: str | None, decision: Decision, *, begins: bool, margin: float, serving: set[str]
    ) -> Decision:
        """Return the decision, or the conversation's own Expert where the margin speaks for staying.

        `begins` says that this is the first turn: nothing before it binds. An Expert that no longer serves
        binds nobody. A fallback, which has no probabilities, never moves a conversation.
        """
        if key is None:
            return decision
        before = None if begins else self._experts.get(key)
        if before is not None and before in serving and before != decision.expert:
            decision = _stay(before, decision, margin)
        self._experts[key] = decision.expert
        self._experts.move_to_end(key)
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
        why = f"{decision.why}; it leads {before}, who answered before, by {lead:.2f}, above the margin of {margin:g}"
        return replace(decision, why=why)
    why = f"it stays with {before}: {decision.expert} leads by {lead:.2f}, not above the margin of {margin:g}"
    return replace(
        decision,
        expert=before,
        strategy="Conversation",
        why=why,
        confidence=decision.probabilities.get(before),
    )
