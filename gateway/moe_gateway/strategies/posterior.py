"""Posterior: chooses the Expert under which the prompt is most likely.

Every Expert's server scores the same bytes of the prompt; Bayes' rule turns the scores into probabilities:

    p(e | text) ∝ prior(e) · exp(log p(text | e) / temperature)

It is the most accurate strategy and the most expensive one: each request costs a forward pass of every Expert.
"""

import asyncio
import math
from collections.abc import Mapping

from moe_formats.routing_policy import RoutingPolicy
from moe_gateway.decision import Decision
from moe_gateway.strategies.context import Context, fall_back, last_bytes, named

#: Bytes at the end of the prompt that are scored: few enough to fit every Expert's context.
SCORED_BYTES = 256


async def choose(text: str, context: Context) -> Decision:
    """Ask every Expert that is ready for the likelihood of the end of `text` and choose the most probable one."""
    scored = last_bytes(text, SCORED_BYTES)
    if not scored:
        return fall_back(context.policy, "the prompt is empty")
    asked = [expert for expert in context.policy.experts if expert.is_ready]
    if not asked:
        return fall_back(context.policy, "no Expert is ready")
    tasks = [asyncio.create_task(context.log_likelihood(expert, scored)) for expert in asked]
    try:
        await asyncio.wait(tasks, timeout=context.policy.posterior_timeout_seconds)
    finally:
        for task in tasks:
            task.cancel()
    answered = {
        expert.name: task.result() for expert, task in zip(asked, tasks, strict=True) if _succeeded(task)
    }
    return decide(answered, len(scored.encode()), context.policy)


def decide(log_likelihoods: Mapping[str, float], scored_bytes: int, policy: RoutingPolicy) -> Decision:
    """Return the decision for the log-likelihoods of the same `scored_bytes` bytes, in nats, by Expert.

    An Expert without a likelihood did not answer in time and is left out.
    """
    usable = {name: nats for name, nats in log_likelihoods.items() if math.isfinite(nats)}
    silent = [expert.name for expert in policy.experts if expert.name not in usable]
    if not usable:
        return fall_back(policy, "no Expert scored the prompt in time")
    probabilities = _probabilities(usable, policy)
    best = max(probabilities, key=lambda name: (probabilities[name], name))
    bits_per_byte = {name: -nats / math.log(2) / scored_bytes for name, nats in usable.items()}
    why = f"{named(policy, best)} codes the end of the prompt in {bits_per_byte[best]:.2f} bits per byte"
    others = [name for name in probabilities if name != best]
    if others:
        second = max(others, key=lambda name: (probabilities[name], name))
        why += f"; {named(policy, second)}, the next most probable, in {bits_per_byte[second]:.2f}"
    if silent:
        why += f"; did not answer in time: {', '.join(silent)}"
    return Decision(
        expert=best,
        strategy="Posterior",
        why=why,
        probabilities=probabilities,
        confidence=probabilities[best],
        bits_per_byte=bits_per_byte,
    )


def _probabilities(log_likelihoods: Mapping[str, float], policy: RoutingPolicy) -> dict[str, float]:
    """Return prior · exp(nats / temperature), normalised, without overflow."""
    scores = {
        name: math.log(policy.prior.get(name, 1.0)) + nats / policy.temperature
        for name, nats in log_likelihoods.items()
    }
    highest = max(scores.values())
    weights = {name: math.exp(score - highest) for name, score in scores.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _succeeded(task: "asyncio.Task[float]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
