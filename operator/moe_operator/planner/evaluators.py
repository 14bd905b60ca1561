"""Finds the evaluators that an Expert asks for: the one of its target, and those that the gate reads."""

from moe_formats.resources.evaluator import Evaluator
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool


def evaluator_names(expert: Expert) -> list[str]:
    """Return the names of the evaluators that an Expert asks for, each once, that of the target first."""
    target = expert.spec.targets.accuracy
    names = [target.evaluator] if target is not None else []
    return list(dict.fromkeys([*names, *expert.spec.promotion.evaluators]))


def asked_evaluators(expert: Expert, pool: ExpertPool | None) -> list[Evaluator]:
    """Return the pool's definitions of the evaluators that an Expert asks for, without those that it does not define."""
    known = {item.name: item for item in pool.spec.evaluation.evaluators} if pool is not None else {}
    return [known[name] for name in evaluator_names(expert) if name in known]
