"""What a strategy may use, and the functions that strategies share."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from moe_formats.routing_policy import RoutedExpert, RoutingPolicy
from moe_gateway.decision import Decision


class Table(Protocol):
    """The small model that the Distilled strategy uses."""

    def score(self, text: str) -> Mapping[str, float]:
        """Return the calibrated probability of each Expert that the table knows."""


@dataclass(frozen=True)
class Context:
    """What a strategy may use besides the text.

    `log_likelihood` asks an Expert's server for log p(text) in nats; it raises if the server does not answer.
    """

    policy: RoutingPolicy
    table: Table | None
    log_likelihood: Callable[[RoutedExpert, str], Coroutine[Any, Any, float]]


def fall_back(policy: RoutingPolicy, because: str) -> Decision:
    """Return the decision for a request that the strategy cannot decide, for the reason `because`."""
    expert = policy.default_expert()
    return Decision(expert=expert.name, strategy="Fallback", why=f"{because}, so {expert.name} takes it")


def in_its_place(policy: RoutingPolicy, decision: Decision, because: str) -> Decision | None:
    """Return who answers instead if the chosen Expert cannot, for the reason `because`; None if nobody does.

    An Expert that the client named is never replaced. Another one than the fallback never takes over, since that would
    send each request of an Expert that restarts to the one that is wrong for it by the least.
    """
    if decision.strategy == "Pinned" or policy.fallback in (None, decision.expert):
        return None
    return fall_back(policy, because)


def named(policy: RoutingPolicy, name: str) -> str:
    """Return an Expert's name and, if different, its domain, for people to read."""
    expert = policy.expert(name)
    if expert is None or expert.domain in (None, name):
        return name
    return f"{name} ({expert.domain})"


def last_bytes(text: str, limit: int) -> str:
    """Return the end of a text: at most `limit` bytes of UTF-8, without cutting a character."""
    return text.encode("utf-8", "replace")[-limit:].decode("utf-8", "ignore")
