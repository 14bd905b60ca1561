"""Graders between evaluation and gate: the Job that has them judge what models answered.

A grader is no part of the work that is judged: whatever goes wrong with it is said on the Expert and tried again,
however often that happens, and refuses nothing.
"""

from moe_formats.job_config import GradeJob, Grader, Grading
from moe_formats.job_report import EvaluateHeadline, Ungraded
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import ExpertRevision
from moe_operator.builders.grade_job import build_grade_job
from moe_operator.config import OperatorConfig
from moe_operator.planner.data import plain_profile
from moe_operator.planner.evaluators import asked_evaluators
from moe_operator.planner.job_configs import expert_ref
from moe_operator.planner.names import grade_job_name
from moe_operator.state import ExpertState, Manifest


def new_grade_job(
    state: ExpertState,
    pool: ExpertPool,
    revision: ExpertRevision,
    evaluation: EvaluateHeadline,
    ungraded: Ungraded,
    *,
    attempt: int,
    config: OperatorConfig,
) -> Manifest:
    """Return the Job that has graders judge what an evaluation left open, and finishes its report."""
    gradings = _gradings(state, pool, ungraded, config)
    job = GradeJob(
        pool_uid=pool.metadata.uid,
        expert=expert_ref(state.expert),
        revision=revision.metadata.name,
        evaluation=ungraded.path,
        report=evaluation.report,
        gradings=gradings,
    )
    return build_grade_job(
        name=grade_job_name(revision.metadata.name, attempt),
        expert=state.expert,
        job=job,
        graders=[config.graders[grading.grader.name] for grading in gradings],
        claim=pool.claim,
        profile=plain_profile(config),
        config=config,
    )


def _gradings(
    state: ExpertState, pool: ExpertPool, ungraded: Ungraded, config: OperatorConfig
) -> tuple[Grading, ...]:
    """Return who judges which answers; an evaluator that has no grader any more is left out."""
    named = {item.name: item.grader for item in asked_evaluators(state.expert, pool)}
    return tuple(
        Grading(evaluator=evaluator, grader=_identity(name, config))
        for evaluator in ungraded.evaluators
        if (name := named.get(evaluator)) is not None and name in config.graders
    )


def _identity(name: str, config: OperatorConfig) -> Grader:
    """Return what verdicts depend on: how much a grader may use, and for how long, is no part of it."""
    grader = config.graders[name]
    return Grader(name=name, image=grader.image, command=grader.command)
