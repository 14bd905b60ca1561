"""Evaluators from the pool's spec to the Expert's status and the gate."""

from typing import Any

import pytest
from world import World
from world.manifests import job_config

from moe_formats.job_config import EvaluateJob, SnapshotJob

SUMS = {"name": "sums", "measure": "exactMatch", "store": "corpora", "path": "sums.jsonl"}


def world_with(evaluators: list[dict[str, Any]], **expert: Any) -> World:
    world = World()
    world.pool(evaluation={"evaluators": evaluators})
    world.expert("general")
    world.expert("code", **expert)
    world.settle()
    return world


def configs(world: World, expert: str) -> list[Any]:
    return [job_config(job) for job in world.all("Job", expert=expert)]


@pytest.fixture
def judged() -> World:
    return world_with([SUMS], targets={"accuracy": {"evaluator": "sums", "min": 0.8}})


def test_the_items_are_frozen_by_the_snapshot_and_answered_in_the_evaluation(judged: World) -> None:
    snapshot = judged.status("code").snapshot
    assert [(item.evaluator, item.items) for item in snapshot.tasks] == [("sums", 100)]
    assert judged.status("general").snapshot.tasks == []
    kinds = {type(config): config for config in configs(judged, "code")}
    assert kinds[SnapshotJob].evaluators[0].stop == ("\n",)
    assert kinds[EvaluateJob].tasks[0].digest == snapshot.tasks[0].digest


def test_a_target_is_judged_by_the_lower_bound_and_shown_with_its_interval(judged: World) -> None:
    status = judged.status("code")
    (result,) = status.target_results
    assert (result.name, result.measured, result.met) == ("accuracy.sums", 0.85, True)
    assert status.targets == "1/1"
    assert status.scores.accuracies[0].accuracy.upper == 0.95
    judged.change("code", targets={"accuracy": {"evaluator": "sums", "min": 0.9}})
    judged.settle()
    met, reason, message = judged.condition("code", "TargetsMet")
    assert (met, reason) == ("False", "TargetsMissed")
    assert "accuracy.sums: the lower end is 0.850; the target is at least 0.9" in message
    assert judged.revisions("code") == ["code-1"]  # a target is no input


def test_an_inferior_revision_is_refused_and_the_old_one_serves_on(judged: World) -> None:
    judged.trainer.accuracy_gained["code-2"] = -0.2
    judged.change("code", seed=1)
    judged.settle()
    verdict = judged.revision("code-2").status.verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.clause) == ("Refused", "evaluators")
    assert judged.status("code").serving.revision == "code-1"


def test_asking_for_an_evaluator_later_reads_its_items_and_makes_no_revision() -> None:
    world = world_with([SUMS])
    before = world.status("code").snapshot.digest
    world.change("code", targets={"accuracy": {"evaluator": "sums", "min": 0.8}})
    world.settle()
    assert world.status("code").snapshot.tasks[0].evaluator == "sums"
    assert world.status("code").snapshot.digest == before
    assert world.revisions("code") == ["code-1"]
    met, _, message = world.condition("code", "TargetsMet")
    assert met == "Unknown"
    assert "change spec.runID" in message
    world.change("code", targets={"accuracy": {"evaluator": "sums", "min": 0.8}}, runID="again")
    world.settle()
    assert world.revisions("code") == ["code-1", "code-2"]
    assert world.condition("code", "TargetsMet")[0] == "True"


def test_only_the_claims_of_evaluators_that_are_asked_for_are_mounted() -> None:
    other = {**SUMS, "name": "other", "store": None, "claim": "elsewhere"}
    world = world_with([SUMS, other], promotion={"evaluators": ["other"]})
    world.claim("elsewhere", use="source")
    world.settle()
    (job,) = world.all("Job", expert="code", role="snapshot")
    volumes = [v.get("persistentVolumeClaim", {}) for v in job["spec"]["template"]["spec"]["volumes"]]
    assert {"claimName": "elsewhere", "readOnly": True} in volumes
    (read,) = job_config(job).evaluators
    assert (read.name, read.root) == ("other", "claim.elsewhere")
