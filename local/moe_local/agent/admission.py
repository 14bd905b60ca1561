"""Whether a pod fits on the node with those that are there. The scheduler has checked it, but may have raced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from moe_local.agent import quantity
from moe_local.agent.pod import Pod
from moe_local.agent.state import End


def requests(pod: Pod) -> dict[str, Decimal]:
    """Return what a pod takes of the node: its containers together, or its largest init container."""
    total: dict[str, Decimal] = {}
    for container in pod.spec.containers:
        for name, amount in container.resources.requested().items():
            total[name] = total.get(name, Decimal(0)) + quantity.parse(amount)
    for container in pod.spec.init_containers:
        for name, amount in container.resources.requested().items():
            total[name] = max(total.get(name, Decimal(0)), quantity.parse(amount))
    return total


def refusal(pod: Pod, others: Sequence[Pod], capacity: Mapping[str, str]) -> End | None:
    """Return why a pod does not fit with the others, in the kubelet's words; None if it does."""
    wanted = requests(pod) | {"pods": Decimal(1)}
    used: dict[str, Decimal] = {"pods": Decimal(len(others))}
    for other in others:
        for name, amount in requests(other).items():
            used[name] = used.get(name, Decimal(0)) + amount
    for name, amount in wanted.items():
        room = quantity.parse(capacity.get(name, "0"))
        taken = used.get(name, Decimal(0))
        if amount and taken + amount > room:
            text = f"Node didn't have enough resource: {name}, requested: {amount}, used: {taken}, capacity: {room}"
            return End(0, f"OutOf{name}", text, "Failed")
    return None
