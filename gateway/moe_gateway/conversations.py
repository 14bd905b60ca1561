"""Keeps a conversation with the Expert that answered it, unless another one is clearly better.

The memory is bounded and is lost on restart; then conversations are routed anew, and the worst that can happen is
that one changes its Expert. Only hashes of prompts are kept.
"""

import hashlib
from collections import OrderedDict
from dataclasses import replace

from moe_gateway.decision import Decision
from moe_gateway.openai import Call

#: Conversations that are remembered; the least recently used one is forgotten first.
MAX_CONVERSATIONS = 10_000


def conversation_of(call: Call, header: str | None) -> str | None:
    """Return the key of the conversation that a call belongs to: the client's own id, or else its beginning.

    A chat is recognised by its first user message and its `user`; a plain completion only by the header. None
    means that the call belongs to no conversation.
    """
    if header:
        identity = f"id\0{header}"
    elif call.opening is not None:
        identity = f"opening\0{call.user or ''}\0{call.opening}"
    else:
        return None
    return hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=16).hexdigest()


class Conversations:
    """Remembers which Expert answered each conversation last."""

    def __init__(self, capacity: int = MAX_CONVERSATIONS) -> None:
        """Remember at most `capacity` conversations."""
        self._capacity = capacity
        self._experts: OrderedDict[str, str] = OrderedDict()

    def settle(
        self, key: str | None, decision: Decision, *, begins: bool, margin: float, serving: set[str]
    ) -> Decision:
        """Return the decision, changed to the conversation's own Expert unless another leads it by more than `margin`.

        `begins` says that this is the first turn, so that no earlier decision counts. Nor does an earlier Expert
        count that is not in `serving`. A fallback has no probabilities and never moves a conversation.
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
