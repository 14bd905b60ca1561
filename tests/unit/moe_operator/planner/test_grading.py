"""Graders between evaluation and gate: they hold a revision up, and never decide one by failing."""

from datetime import timedelta
from typing import Any

import pytest
from world import CONFIG, World
from world.manifests import job_config

from moe_formats.job_config import EvaluateJob, GradeJob
from moe_operator.config import Grader
from moe_operator.planner.retention import KEPT_ATTEMPTS

PROGRAMS = {
    "name": "programs",
    "measure": "container",
    "grader": "pytest",
    "store": "corpora",
    "path": "programs.jsonl",
}
PYTEST = Grader(image="registry.example/pytest:3", command=("grade",))


def graded_world(**fates: str) -> World:
    """Return a world in which an Expert is judged by a grader."""
    world = World(CONFIG.model_copy(update={"graders": {"pytest": PYTEST}}))
    world.trainer.graded = {"programs"}
    world.trainer.fate.update({name.replace("_", "-"): fate for name, fate in fates.items()})
    world.pool(evaluation={"evaluators": [PROGRAMS]})
    world.expert("general")
    world.expert("code", targets={"accuracy": {"evaluator": "programs", "min": 0.8}})
    return world


def jobs(world: World, start: str) -> list[str]:
    return [name for job in world.all("Job") if (name := job["metadata"]["name"]).startswith(start)]


def config(world: World, job: str) -> Any:
    return job_config(world.get("Job", job))


def test_what_an_evaluation_leaves_open_is_graded_and_then_judged_like_any_other() -> None:
    world = graded_world()
    world.settle()
    assert jobs(world, "code-1") == ["code-1-a1", "code-1-e1", "code-1-g1"]
    evaluated, graded = config(world, "code-1-e1"), config(world, "code-1-g1")
    assert isinstance(evaluated, EvaluateJob)
    assert isinstance(graded, GradeJob)
    assert (graded.evaluation, len(graded.gradings)) == ("evaluations/code-1", 1)
    grader = graded.gradings[0].grader
    assert (grader.name, grader.image, grader.command) == ("pytest", PYTEST.image, PYTEST.command)
    (result,) = world.status("code").target_results
    assert (result.name, result.met) == ("accuracy.programs", True)
    assert world.status("code").serving.revision == "code-1"
    assert jobs(world, "general-1-g") == []  # general asks for no evaluator


def test_an_inferior_revision_is_refused_by_its_grader() -> None:
    world = graded_world()
    world.settle()
    world.trainer.accuracy_gained["code-2"] = -0.2
    world.change("code", seed=1)
    world.settle()
    verdict = world.revision("code-2").status.verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.clause) == ("Refused", "evaluators")


def test_a_grader_that_fails_is_named_and_tried_again_and_decides_nothing() -> None:
    world = graded_world(**{f"code_1_g{n}": "grader" for n in range(1, 30)})
    for _ in range(120):
        world.reconcile_all()
        world.tick(60)
    assert world.revision("code-1").status.verdict is None
    assert world.status("code").serving is None or world.status("code").serving.revision is None
    met, reason, message = world.condition("code", "Evaluated")
    assert (met, reason) == ("False", "GraderFailed")
    assert "grader pytest ended with exit code 3: last words" in message
    assert "chart's values" in message
    assert world.condition("code", "Stalled")[0] == "False"
    assert len(jobs(world, "code-1-g")) <= KEPT_ATTEMPTS + 1
    world.trainer.fate.clear()
    world.now += timedelta(minutes=10)
    world.settle()
    assert world.status("code").serving.revision == "code-1"


def test_a_grader_that_is_taken_from_the_installation_stalls_the_expert_and_refuses_nothing() -> None:
    world = graded_world(code_1_g1="grader")
    world.config = CONFIG
    world.settle()
    assert world.condition("code", "Stalled")[1] == "UnknownGrader"
    assert world.revisions("code") == []
    world.config = CONFIG.model_copy(update={"graders": {"pytest": PYTEST}})
    world.settle()
    assert world.status("code").serving.revision == "code-1"


def test_another_grader_for_the_same_items_reads_nothing_again() -> None:
    world = graded_world()
    world.settle()
    other = {**PROGRAMS, "grader": "other"}
    world.config = CONFIG.model_copy(update={"graders": {"pytest": PYTEST, "other": PYTEST}})
    before = len([name for name in world.created if "snapshot" in name])
    world.pool(evaluation={"evaluators": [other]})
    world.settle()
    assert len([name for name in world.created if "snapshot" in name]) == before
    world.change("code", seed=1)
    world.settle()
    assert config(world, "code-2-g1").gradings[0].grader.name == "other"


@pytest.fixture(scope="module")
def whole() -> World:
    """Return where an operator ends that is never killed, with what a kill after each write would have left."""
    world = graded_world()
    world.history = [world.fork()]
    world.settle()
    return world


@pytest.mark.parametrize("write", range(0, 60, 3))
def test_killed_after_any_write_it_ends_the_same(whole: World, write: int) -> None:
    assert whole.history is not None
    killed = whole.history[write].fork()
    killed.settle()
    assert killed.end_state() == whole.end_state()
