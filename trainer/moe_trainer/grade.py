"""``moe-trainer grade``: read the verdicts of graders, and complete the report of an evaluation.

    the evaluation's report → verdicts, kept ones or those in the graders' folders → accuracies → the complete report

It runs in a grade Job's pod after ``handout`` and the graders. Verdicts are kept before the report is written, so
that a Job that was killed asks nothing twice. If a grader failed, no report is written, and the next attempt asks it
again.
"""

from collections.abc import Sequence

from moe_formats.job_config import GradeJob, Grading
from moe_formats.job_report import Accuracy, EvaluateHeadline
from moe_trainer.environment import Environment
from moe_trainer.evaluation.report import EvaluationReport, committed_report
from moe_trainer.evaluators.accuracy import weigh_answers
from moe_trainer.evaluators.gradings import graded_report, open_gradings
from moe_trainer.evaluators.verdicts import Asked


def run(job: GradeJob, environment: Environment) -> EvaluateHeadline:
    """Complete a report, or return the headline of one that was completed before.

    Raises TransientError (GraderFailed) if a grader's output is not what was asked for.
    """
    before = graded_report(job, environment.store)
    return committed_report(
        environment.store,
        before.job.candidate.path,
        job.to_json(),
        lambda: _finished(before, list(open_gradings(job, environment)), job),
    )


def _finished(before: EvaluationReport, gradings: Sequence[Asked], job: GradeJob) -> EvaluationReport:
    found = [_accuracy(before, asked) for asked in gradings]
    absent = {f"accuracy.{name}": _without_grader(name) for name in _left_out(before, job.gradings)}
    return before.model_copy(
        update={
            "accuracies": (*before.accuracies, *found),
            "absent": before.absent | absent,
            "ungraded": (),
            "gradings": job.gradings,
        }
    )


def _accuracy(before: EvaluationReport, asked: Asked) -> Accuracy:
    own, *others = asked.take_in()
    return weigh_answers(asked.grading.evaluator, own, others[0] if others else None, before.job.against)


def _left_out(before: EvaluationReport, gradings: tuple[Grading, ...]) -> list[str]:
    graded = {grading.evaluator for grading in gradings}
    return [name for name in before.ungraded if name not in graded]


def _without_grader(name: str) -> str:
    return (
        f"NotGraded: evaluator {name} had a grader when its items were frozen, and has none now; change spec.runID to "
        "make another revision"
    )
