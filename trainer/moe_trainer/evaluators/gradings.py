"""What a grade Job works on: the report of an evaluation, and the answers that it left to graders.

``handout`` writes the questions of every grading, ``grade`` takes the verdicts in.
"""

from collections.abc import Iterator
from pathlib import Path

from moe_formats import store
from moe_formats.failure import JobError
from moe_formats.format import digest_of
from moe_formats.job_config import ArtefactRef, GradeJob, TasksRef
from moe_trainer.environment import Environment
from moe_trainer.evaluation.report import REPORT, EvaluationReport
from moe_trainer.evaluators.answers import Answers, AnswersKey, kept_answers
from moe_trainer.evaluators.tasks import read_items
from moe_trainer.evaluators.verdicts import Asked
from moe_trainer.storage.committed import Committed
from moe_trainer.storage.manifest import corrupt


def open_gradings(job: GradeJob, environment: Environment) -> Iterator[Asked]:
    """Yield the gradings of a Job in their order; raises JobError (ArtefactCorrupt)."""
    if environment.gradings is None:
        raise JobError("InvalidEnvironment", "MOE_GRADINGS is not set: it must name the folder of graders.")
    root = environment.store
    report = graded_report(job, root)
    tasks = {tasks.evaluator: tasks for tasks in report.job.tasks}
    models = [model for model in (report.job.candidate, report.job.opponent) if model is not None]
    for number, grading in enumerate(job.gradings):
        asked = tasks[grading.evaluator]
        yield Asked(
            grading=grading,
            items=read_items(root, asked),
            answers=[_answers(job, root, model, asked, report.device) for model in models],
            store=root,
            cells=store.cells(job.pool_uid),
            folder=environment.gradings / str(number),
        )


def graded_report(job: GradeJob, root: Path) -> EvaluationReport:
    """Return the report of the evaluation that a Job finishes; raises JobError (ArtefactCorrupt)."""
    with Committed(root, job.evaluation) as held:
        text = held.read(REPORT)
    if digest_of(text) != job.report:
        raise corrupt(
            root / job.evaluation,
            f"the digest of its report is {digest_of(text)}, not {job.report} as expected",
        )
    return EvaluationReport.model_validate_json(text)


def _answers(job: GradeJob, root: Path, model: ArtefactRef, tasks: TasksRef, device: str) -> Answers:
    key = AnswersKey(artefact=model.digest, tasks=tasks.digest, device=device)
    answers = kept_answers(root, job.pool_uid, key)
    if answers is None:
        raise JobError(
            "ArtefactCorrupt",
            f"the answers of {model.revision} to evaluator {tasks.evaluator} are no longer in the pool's store, or were "
            "altered. Restore the folder `cells` from a backup, or make the revision again with a new runID.",
        )
    return answers
