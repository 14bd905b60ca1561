"""The evaluators that an Expert asks for: that of its target, and those that the gate holds it to."""

from moe_formats.resources.evaluator import Evaluator
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool


def evaluator_names(expert: Expert) -> list[str]:
    """Return the names of the evaluators that an Expert asks for, each once, the target's first."""
    target = expert.spec.targets.accuracy
    names = [target.evaluator] if target is not None else []
    return list(dict.fromkeys([*names, *expert.spec.promotion.evaluators]))


def asked_evaluators(expert: Expert, pool: ExpertPool | None) -> list[Evaluator]:
    """Return what a pool says of the evaluators that an Expert asks for; those it does not know are left out."""
    known = {item.name: item for item in pool.spec.evaluation.evaluators} if pool is not None else {}
    return [known[name] for name in evaluator_names(expert) if name in known]
