"""``moe-trainer handout``: give graders the answers that an evaluation left open, a folder for each grader.

It runs in a grade Job's pod before the graders, which see nothing of the pool's store.
"""

from moe_formats.format import Format
from moe_formats.job_config import GradeJob
from moe_trainer.environment import Environment
from moe_trainer.evaluators.gradings import open_gradings


class HandedOut(Format):
    """How many questions each grader was given; for people who read logs."""

    questions: tuple[int, ...]


def run(job: GradeJob, environment: Environment) -> HandedOut:
    """Write the questions of every grading; raises JobError (ArtefactCorrupt) if answers are not there."""
    counts = []
    for asked in open_gradings(job, environment):
        counts.append(asked.hand_out())
        grading = asked.grading
        print(f"{counts[-1]} answers to {grading.evaluator} for grader {grading.grader.name}", flush=True)
    return HandedOut(questions=tuple(counts))
