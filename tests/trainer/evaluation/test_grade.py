"""A grade Job in process: what is handed out to a grader, what it says, and the report that is finished."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.trainer.evaluation.conftest import Pool
from tests.trainer.evaluation.test_evaluate import job
from tests.trainer.evaluation.test_evaluators import frozen

from moe_formats.failure import JobError, TransientError
from moe_formats.job_config import EvaluateJob, GradeJob, Grader, Grading
from moe_formats.job_report import MAX_HEADLINE_BYTES, EvaluateHeadline
from moe_trainer import evaluate, grade, handout
from moe_trainer.environment import Environment
from moe_trainer.evaluators.exchange import INPUT, OUTPUT

GRADER = Grader(name="letters", image="registry.example/letters:1", command=("judge",))


class Bench:
    """A pool with one evaluator that a grader judges."""

    def __init__(self, pool: Pool, path: Path) -> None:
        self.pool, self.path = pool, path
        self.tasks = frozen(pool, path, "birds", measure="container")
        self.number = 0

    def evaluated(self, candidate: str, current: str | None = None) -> tuple[EvaluateJob, EvaluateHeadline]:
        models = self.pool.models
        changes = {"tasks": (self.tasks,), "current": models[current] if current else None}
        asked = job(self.pool, "birds", models[candidate], **changes)
        return asked, evaluate.run(asked, self.pool.environment)

    def grading(self, found: EvaluateHeadline, grader: Grader = GRADER, **changes: object) -> GradeJob:
        assert found.ungraded is not None
        given = {
            "pool_uid": "pool",
            "expert": self.pool.experts["birds"],
            "revision": "birds-1",
            "evaluation": found.ungraded.path,
            "report": found.report,
            "gradings": (Grading(evaluator="letters", grader=grader),),
        }
        return GradeJob.model_validate(given | changes)

    def pod(self) -> Environment:
        """Return the environment of a new pod, with nothing in the folder of its graders."""
        self.number += 1
        folder = self.path / f"pod-{self.number}"
        folder.mkdir()
        return dataclasses.replace(self.pool.environment, gradings=folder)

    def graded(self, asked: GradeJob) -> EvaluateHeadline:
        pod = self.pod()
        handout.run(asked, pod)
        judge(pod)
        return grade.run(asked, pod)


def questions(pod: Environment) -> list[dict[str, object]]:
    assert pod.gradings is not None
    return [json.loads(line) for line in (pod.gradings / "0" / INPUT).read_text().splitlines()]


def judge(pod: Environment) -> None:
    """Do what the grader's program does: the right letter is in the item, as its author wrote it."""
    assert pod.gradings is not None
    said = [
        {"id": asked["id"], "score": asked["completion"] == asked["item"]["answer"]}  # type: ignore[index]
        for asked in questions(pod)
    ]
    (pod.gradings / "0" / OUTPUT).write_text("".join(json.dumps(line) + "\n" for line in said))


@pytest.fixture
def bench(own_pool: Pool, tmp_path: Path) -> Bench:
    return Bench(own_pool, tmp_path)


def test_a_grader_that_compares_letters_finds_what_exact_match_finds(bench: Bench) -> None:
    _, found = bench.evaluated("birds-1")
    assert found.ungraded is not None
    assert found.ungraded.evaluators == ("letters",)
    assert not found.accuracies
    whole = bench.graded(bench.grading(found))
    assert whole.ungraded is None
    (graded,) = whole.accuracies
    exact = frozen(bench.pool, bench.path, "birds")
    (matched,) = evaluate.run(
        job(bench.pool, "birds", bench.pool.models["birds-1"], tasks=(exact,)), bench.pool.environment
    ).accuracies
    assert (graded.accuracy.value, graded.items, graded.against) == (matched.accuracy.value, 60, "base")
    assert graded.accuracy.clusters == 30
    assert graded.difference and graded.difference.lower > 0.2
    assert whole.decisions == found.decisions
    assert len(whole.to_json().encode()) <= MAX_HEADLINE_BYTES


def test_the_next_candidate_asks_nothing_of_its_predecessor(bench: Bench) -> None:
    _, found = bench.evaluated("birds-1")
    bench.graded(bench.grading(found))
    _, next_found = bench.evaluated("metals-1", current="birds-1")
    asked, pod = bench.grading(next_found), bench.pod()
    handout.run(asked, pod)
    texts = {(str(line["item"]), line["completion"]) for line in questions(pod)}
    assert len(texts) == len(questions(pod)) <= 60
    judge(pod)
    (graded,) = grade.run(asked, pod).accuracies
    assert graded.against == "current"
    assert graded.difference and graded.difference.upper < -0.2
    other = bench.grading(
        next_found, grader=GRADER.model_copy(update={"image": "registry.example/letters:2"})
    )
    pod = bench.pod()
    handout.run(other, pod)
    assert len(questions(pod)) > len(texts)  # another grader says everything anew


def test_a_broken_grader_leaves_no_report_and_the_next_attempt_asks_again(bench: Bench) -> None:
    _, found = bench.evaluated("birds-1")
    asked, pod = bench.grading(found), bench.pod()
    handout.run(asked, pod)
    assert pod.gradings is not None
    (pod.gradings / "0" / OUTPUT).write_text('{"id": "1", "score": 1}\n')
    with pytest.raises(TransientError, match="GraderFailed: grader letters of evaluator letters: its output"):
        grade.run(asked, pod)
    assert bench.graded(asked).accuracies


def test_an_attempt_killed_before_its_report_asks_again_and_reads_no_answer(bench: Bench) -> None:
    _, found = bench.evaluated("birds-1")
    asked = bench.grading(found)
    first = bench.graded(asked)
    evaluations = bench.pool.path(bench.pool.models["birds-1"]).parent / "evaluations"
    for folder in evaluations.iterdir():
        if folder.name not in asked.evaluation:
            shutil.rmtree(folder)
    pod = bench.pod()
    handout.run(asked, pod)
    assert questions(pod)  # a grader is never run on nothing
    assert grade.run(asked, pod) == first
    assert grade.run(asked, bench.pod()) == first


def test_an_evaluator_that_lost_its_grader_is_absent_with_the_reason(bench: Bench) -> None:
    _, found = bench.evaluated("birds-1")
    whole = grade.run(bench.grading(found, gradings=()), bench.pod())
    assert not whole.accuracies
    assert whole.absent["accuracy.letters"].startswith("NotGraded")


def test_altered_reports_and_lost_answers_are_refused(bench: Bench) -> None:
    _, found = bench.evaluated("birds-1")
    with pytest.raises(JobError, match="ArtefactCorrupt"):
        handout.run(bench.grading(found, report="sha256:" + "0" * 64), bench.pod())
    shutil.rmtree(bench.pool.environment.store / "pools/pool/cells")
    with pytest.raises(JobError, match="ArtefactCorrupt: the answers of birds-1 to evaluator letters"):
        handout.run(bench.grading(found), bench.pod())


def test_the_grader_of_the_documentation_does_what_it_says(bench: Bench) -> None:
    page = (Path(__file__).parents[3] / "docs" / "evaluators.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    _, found = bench.evaluated("birds-1")
    asked, pod = bench.grading(found), bench.pod()
    handout.run(asked, pod)
    assert pod.gradings is not None
    folder = pod.gradings / "0"
    paths = {"MOE_GRADER_INPUT": str(folder / INPUT), "MOE_GRADER_OUTPUT": str(folder / OUTPUT)}
    ours = program.replace('item["accepts"]', 'item["answer"]')
    subprocess.run([sys.executable, "-c", ours], env=paths, check=True)
    assert grade.run(asked, pod).accuracies[0].accuracy.lower > 0.5
