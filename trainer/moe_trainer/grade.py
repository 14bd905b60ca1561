"""``moe-trainer grade``: take in what graders wrote, and finish the report of an evaluation.

    the evaluation's report → verdicts, kept or from the graders' folders → accuracies → a report that is whole

It runs in a grade Job's pod after ``handout`` and the graders. Verdicts are kept before the report is written, so
that nothing is asked again after a kill; with a grader that failed there is no report, and the next attempt asks it
again.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from moe_formats import store
from moe_formats.failure import JobError
from moe_formats.format import digest_of
from moe_formats.job_config import ArtefactRef, GradeJob, Grading, TasksRef
from moe_formats.job_report import Accuracy, EvaluateHeadline
from moe_trainer.environment import Environment
from moe_trainer.evaluation.report import REPORT, EvaluationReport, committed_report
from moe_trainer.evaluators.accuracy import weigh_answers
from moe_trainer.evaluators.answers import Answers, AnswersKey, kept_answers
from moe_trainer.evaluators.tasks import read_items
from moe_trainer.evaluators.verdicts import Asked
from moe_trainer.storage import manifest


def run(job: GradeJob, environment: Environment) -> EvaluateHeadline:
    """Finish a report, or repeat the headline of one that was finished before.

    Raises TransientError (GraderFailed) for a grader's output that is not what was asked.
    """
    before = _evaluation(job, environment.store)
    return committed_report(
        environment.store,
        before.job.candidate.path,
        job.to_json(),
        lambda: _finished(before, list(open_gradings(job, environment)), job),
    )


def open_gradings(job: GradeJob, environment: Environment) -> Iterator[Asked]:
    """Yield the gradings of a Job in their order; raises JobError (ArtefactCorrupt)."""
    if environment.gradings is None:
        raise JobError("InvalidEnvironment", "MOE_GRADINGS is not set: it must name the folder of graders.")
    root = environment.store
    report = _evaluation(job, root)
    tasks = {tasks.evaluator: tasks for tasks in report.job.tasks}
    models = [model for model in (report.job.candidate, report.job.opponent) if model is not None]
    for number, grading in enumerate(job.gradings):
        asked = tasks[grading.evaluator]
        manifest.verify(root / asked.path, asked.digest)
        yield Asked(
            grading=grading,
            items=read_items(root, asked),
            answers=[_answers(job, root, model, asked, report.device) for model in models],
            cells=root / store.cells(job.pool_uid),
            folder=environment.gradings / str(number),
        )


def _evaluation(job: GradeJob, root: Path) -> EvaluationReport:
    folder = root / job.evaluation
    manifest.verify(folder)
    text = (folder / REPORT).read_bytes()
    if digest_of(text) != job.report:
        raise manifest.corrupt(folder, f"its report is {digest_of(text)}, not the expected {job.report}")
    return EvaluationReport.model_validate_json(text)


def _answers(job: GradeJob, root: Path, model: ArtefactRef, tasks: TasksRef, device: str) -> Answers:
    key = AnswersKey(artefact=model.digest, tasks=tasks.digest, device=device)
    answers = kept_answers(root, job.pool_uid, key)
    if answers is None:
        raise JobError(
            "ArtefactCorrupt",
            f"what {model.revision} answered to evaluator {tasks.evaluator} is no longer in the pool's store, or was "
            "altered. Restore the folder `cells` from a backup, or make the revision again with a new runID.",
        )
    return answers


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
