"""Digests that earlier operators wrote into objects and stores: the same inputs have the same ones for good.

``recorded_identities.json`` was written before the formats had a package of their own. Lines may be added to it and
never changed: a digest that comes out different means that every installation trains its Experts again.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from moe_formats.job_config import ArtefactRef, ExpertRef, SnapshotRef, TrainJob
from moe_formats.job_report import Window
from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.resources.expert_revision import HoldoutInput, Inputs
from moe_operator.planner.evaluators import asked_evaluators
from moe_operator.planner.identity import inputs_digest, suite_digest, training_input
from moe_operator.planner.job_configs import snapshot_job
from moe_operator.planner.reading import request_of

RECORDED = json.loads(Path(__file__).with_name("recorded_identities.json").read_text())
EXPERTS: dict[str, dict[str, Any]] = RECORDED["experts"]
METADATA = {
    "name": "mathematics",
    "namespace": "research",
    "uid": "uid-m",
    "creationTimestamp": "2026-11-01T00:00:00Z",
}
EVALUATOR = {"name": "sums", "measure": "exactMatch", "store": "corpora", "path": "sums.jsonl"}
POOL = ExpertPool.model_validate(
    {
        "metadata": {"name": "first-pool", "namespace": "research", "uid": "uid-p"},
        "spec": {"storage": {"size": "1Gi"}, "evaluation": {"evaluators": [EVALUATOR]}},
    }
)


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def expert(name: str) -> Expert:
    return Expert.model_validate({"metadata": METADATA, "spec": EXPERTS[name]["spec"]})


def inputs(name: str) -> Inputs:
    spec = expert(name).spec
    parent = ArtefactRef(revision="general-1", path="p", digest=digest("2"))
    return Inputs(
        parent=None if spec.base.preset else parent,
        preset=spec.base.preset,
        data=SnapshotRef(path="s", digest=digest("1")),
        training=training_input(expert(name)),
        seed=spec.seed,
        run_id=spec.run_id,
    )


def train_job(name: str) -> TrainJob:
    made_of = inputs(name)
    training = made_of.training
    parent = ArtefactRef(revision="general-1", path="p", digest=digest("2")) if made_of.parent else None
    return TrainJob(
        pool_uid="uid-p",
        expert=ExpertRef(name="mathematics", uid="uid-m", domain="mathematics"),
        revision="mathematics-1",
        attempt=1,
        inputs_digest=inputs_digest(made_of),
        parent=parent,
        preset=made_of.preset,
        base=parent if training.compares_with_base else None,
        data=SnapshotRef(path="s", digest=digest("1")),
        training=training,
        seed=made_of.seed,
    )


@pytest.mark.parametrize("name", EXPERTS)
def test_a_revision_has_the_inputs_and_the_identity_that_it_had(name: str) -> None:
    made_of = inputs(name)
    assert made_of.model_dump(mode="json", by_alias=True, exclude_none=True) == EXPERTS[name]["inputs"]
    assert inputs_digest(made_of) == EXPERTS[name]["inputsDigest"]
    assert inputs_digest(Inputs.model_validate(EXPERTS[name]["inputs"])) == EXPERTS[name]["inputsDigest"]


@pytest.mark.parametrize("name", EXPERTS)
def test_a_snapshot_is_asked_for_by_the_name_that_it_had(name: str) -> None:
    asked = expert(name)
    request = request_of(
        asked, now=datetime(2026, 11, 30, tzinfo=UTC), evaluators=asked_evaluators(asked, POOL)
    )
    assert str(request) == EXPERTS[name]["request"]
    assert snapshot_job(asked, POOL).content_digest() == EXPERTS[name]["snapshotJob"]


@pytest.mark.parametrize("name", EXPERTS)
def test_a_training_job_is_told_what_it_was_told(name: str) -> None:
    assert train_job(name).to_json() == EXPERTS[name]["trainJob"]


def test_a_suite_has_the_digest_that_it_had() -> None:
    window = Window(path="w", digest=digest("3"), clusters=20, segments=100)
    suite = [HoldoutInput(domain="mathematics", expert="mathematics", window=window)]
    assert suite_digest(suite) == RECORDED["suiteDigest"]
