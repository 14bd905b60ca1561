"""Plans the grade Job, in which graders judge the answers that the evaluate Job left ungraded.

A grader is not part of the work that is judged. If it fails, the Expert's status says so and grading is tried again, as
often as that happens. A failure of a grader never refuses a revision.
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
    """Return the Job in which graders judge the answers that an evaluation left ungraded, and that completes its report."""
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
    """Return which grader judges the answers of which evaluator; evaluators that no longer have a grader are left out."""
    named = {item.name: item.grader for item in asked_evaluators(state.expert, pool)}
    return tuple(
        Grading(evaluator=evaluator, grader=_identity(name, config))
        for evaluator in ungraded.evaluators
        if (name := named.get(evaluator)) is not None and name in config.graders
    )


def _identity(name: str, config: OperatorConfig) -> Grader:
    """Return the part of a grader that its verdicts depend on, which excludes its limits and its timeout."""
    grader = config.graders[name]
    return Grader(name=name, image=grader.image, command=grader.command)
