"""When two revisions are the same, and why another one would be made."""

from typing import Any

import pytest
from world import World

from moe_operator.api.expert import Expert
from moe_operator.planner.cause import cause_of
from moe_operator.planner.identity import inputs_digest, normalised, training_input


@pytest.fixture(scope="module")
def served() -> World:
    world = World()
    world.pool()
    world.expert("general")
    world.expert("code")
    world.settle()
    return world


def changed(expert: Expert, **spec: Any) -> Expert:
    return Expert.model_validate(
        {"metadata": expert.metadata.model_dump(), "spec": {**expert.spec.model_dump(by_alias=True), **spec}}
    )


def test_a_field_at_its_default_is_no_part_of_the_identity(served: World) -> None:
    expert = served.expert_state("code").expert
    assert normalised(training_input(expert)) == {}
    spelled_out = changed(expert, training={"learningRate": 0.001, "weightDecay": 0.1})
    assert normalised(training_input(spelled_out)) == {}
    assert normalised(training_input(changed(expert, training={"learningRate": 0.01}))) == {
        "learning_rate": 0.01
    }


def test_paths_names_and_intervals_are_no_part_of_the_identity(served: World) -> None:
    inputs = served.revision("code-1").spec.inputs
    assert inputs.parent is not None
    elsewhere = inputs.model_copy(
        update={
            "parent": inputs.parent.model_copy(update={"path": "elsewhere", "revision": "general-9"}),
            "training": inputs.training.model_copy(update={"validation_every": 1}),
        }
    )
    assert inputs_digest(elsewhere) == inputs_digest(inputs)


@pytest.mark.parametrize("field", ["seed", "run_id", "data", "parent", "preset"])
def test_everything_else_is(served: World, field: str) -> None:
    inputs = served.revision("code-1").spec.inputs
    other: dict[str, Any] = {
        "seed": 1,
        "run_id": "again",
        "data": inputs.data.model_copy(update={"digest": "sha256:" + "1" * 64}),
        "parent": None,
        "preset": "tiny",
    }
    assert inputs_digest(inputs.model_copy(update={field: other[field]})) != inputs_digest(inputs)


@pytest.mark.parametrize(
    ("spec", "other_data", "cause"),
    [
        ({}, False, None),
        ({}, True, "NewData"),
        ({"seed": 1}, False, "SpecChanged"),
        ({"seed": 1}, True, "SpecChanged"),
        ({"runID": "again"}, False, "SpecChanged"),
        ({"base": {"preset": "tiny"}}, False, "SpecChanged"),
        ({"training": {"maxSteps": 7}}, False, "SpecChanged"),
        ({"training": {"maxAttempts": 7}}, False, None),
        ({"training": {"checkpointEvery": 7, "validationEvery": 7}}, False, None),
        ({"targets": {"gain": 0.2}}, False, None),
        ({"serving": {"replicas": 4}}, False, None),
    ],
)
def test_the_cause_is_the_first_difference(
    served: World, spec: dict[str, Any], other_data: bool, cause: str | None
) -> None:
    current = served.revision("code-1")
    digest = "sha256:" + "1" * 64 if other_data else current.spec.inputs.data.digest
    found = cause_of(
        changed(served.expert_state("code").expert, **spec),
        data_digest=digest,
        current=current,
        revisions={"code-1": current},
    )
    assert found == cause


def test_a_chain_of_refreshes_remembers_its_base_even_when_its_beginning_is_gone(served: World) -> None:
    world = served.fork()
    for version in (1, 2):
        world.data["code"] = version
        world.change("code", data={"sources": [{"store": "corpora", "path": f"code/{version}/*.txt"}]})
        world.settle()
    assert world.revision("code-3").spec.cause == "NewData"
    world.delete("ExpertRevision", "code-1")
    world.settle()
    assert world.revisions("code") == ["code-2", "code-3"]
    assert world.status("code").serving.revision == "code-3"
    ancestry = world.revision("code-3").spec.inputs.parent.ancestry  # type: ignore[union-attr]
    assert len(ancestry) == 3
