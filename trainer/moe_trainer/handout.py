"""``moe-trainer handout``: give each grader, in a folder of its own, the answers that it has to judge.

It runs in a grade Job's pod before the graders. They see nothing of the pool's store.
"""

from moe_formats.format import Format
from moe_formats.job_config import GradeJob
from moe_trainer.environment import Environment
from moe_trainer.evaluators.gradings import open_gradings


class HandedOut(Format):
    """How many questions each grader was given: only for people who read the logs."""

    questions: tuple[int, ...]


def run(job: GradeJob, environment: Environment) -> HandedOut:
    """Write the questions of every grading; raises JobError (ArtefactCorrupt) if answers are missing."""
    counts = []
    for asked in open_gradings(job, environment):
        counts.append(asked.hand_out())
        grading = asked.grading
        print(
            f"{counts[-1]} answers to evaluator {grading.evaluator} handed to grader {grading.grader.name}",
            flush=True,
        )
    return HandedOut(questions=tuple(counts))
