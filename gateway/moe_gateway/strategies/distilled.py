"""Distilled: a small table of byte n-grams says which Expert encodes such text best.

The distill Job makes the table from the matrix's scores of single segments; the table contains its own calibrated
temperature. Scoring takes about a millisecond at most and asks no Expert.
"""

from moe_gateway.decision import Decision
from moe_gateway.strategies.context import Context, fall_back, last_bytes, named

#: Bytes at the end of the prompt that are scored: enough to decide, and scored in half a millisecond.
SCORED_BYTES = 512


async def choose(text: str, context: Context) -> Decision:
    """Score the end of `text` with the table and choose the most probable Expert of the policy."""
    policy, scored = context.policy, last_bytes(text, SCORED_BYTES)
    if context.table is None:
        return fall_back(policy, "no table has been distilled for this pool yet")
    if not scored:
        return fall_back(policy, "the prompt is empty")
    known = {name: p for name, p in context.table.score(scored).items() if policy.expert(name) is not None}
    total = sum(known.values())
    if total <= 0:
        return fall_back(policy, "the table knows none of the Experts that serve")
    probabilities = {name: p / total for name, p in known.items()}
    best = max(probabilities, key=lambda name: (probabilities[name], name))
    return Decision(
        expert=best,
        strategy="Distilled",
        why=f"the table's n-grams give {named(policy, best)} a probability of {probabilities[best]:.2f}",
        probabilities=probabilities,
        confidence=probabilities[best],
    )
