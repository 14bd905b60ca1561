"""When two revisions are the same, and why another one would be made."""

from typing import Any

import pytest
from world import World

from moe_formats.resources.expert import Expert
from moe_formats.resources.expert_revision import Cause, ExpertRevision, Inputs
from moe_operator.planner.base import decide_base
from moe_operator.planner.demand import CHAIN, Question
from moe_operator.planner.identity import inputs_digest, training_input


def changed(expert: Expert, **spec: Any) -> Expert:
    return Expert.model_validate(
        {"metadata": expert.metadata.model_dump(), "spec": {**expert.spec.model_dump(by_alias=True), **spec}}
    )


def cause_of(served: World, expert: Expert, current: ExpertRevision, data: str) -> Cause | None:
    """Why a revision would be made for an Expert whose newest snapshot has a digest."""
    state = served.expert_state("code")
    snapshot = state.expert.status.snapshot.model_copy(update={"digest": data})  # type: ignore[union-attr]
    question = Question(expert, snapshot, decide_base(state), current=current, root=current)
    return next((found.cause for link in CHAIN if (found := link(question)) is not None), None)


#: Defaults that have changed since the table of what an identity leaves out was begun.
CHANGED_DEFAULTS = {"load_balancing_loss_weight": 0.2}


def test_a_field_that_never_had_another_default_is_left_out_at_it(served: World) -> None:
    expert = served.expert_state("code").expert
    assert training_input(expert).revision_identity() == CHANGED_DEFAULTS
    spelled_out = changed(expert, training={"learningRate": 0.001, "weightDecay": 0.1})
    assert training_input(spelled_out).revision_identity() == CHANGED_DEFAULTS
    faster = changed(expert, training={"learningRate": 0.01})
    assert training_input(faster).revision_identity() == CHANGED_DEFAULTS | {"learning_rate": 0.01}


def test_the_value_that_was_the_default_before_is_left_out_as_it_was_then(served: World) -> None:
    before = changed(served.expert_state("code").expert, training={"loadBalancingLossWeight": 0.01})
    assert training_input(before).revision_identity() == {}


def test_replay_is_part_of_what_weights_are_made_from(served: World) -> None:
    expert = served.expert_state("code").expert
    data = expert.spec.data.model_dump(by_alias=True, exclude_none=True)
    replaying = changed(expert, data={**data, "replay": {"share": 0.1}})
    assert training_input(replaying).revision_identity() == CHANGED_DEFAULTS | {"replay_share": 0.1}


def test_an_adapter_is_known_by_its_sizes_whatever_the_order_of_its_targets(served: World) -> None:
    expert = served.expert_state("code").expert

    def identity(**lora: Any) -> dict[str, object]:
        return training_input(changed(expert, training={"method": "LoRA"} | lora)).revision_identity()

    assert (
        identity()
        == identity(lora={})
        == identity(lora={"rank": 16})
        == CHANGED_DEFAULTS | {"method": "LoRA"}
    )
    assert identity(lora={"rank": 8})["lora"] == {"rank": 8}
    there, back = (
        {"targets": targets} for targets in (["Attention", "FeedForward"], ["FeedForward", "Attention"])
    )
    assert identity(lora=there) == identity(lora=back) != identity()


#: Inputs and their digests, as an operator wrote them before `balancing` and `microBatchTokens` existed.
RECORDED = [
    (
        {
            "preset": "tiny",
            "data": {"path": "s", "digest": "sha256:" + "1" * 64},
            "training": {
                "method": "Full", "learningRate": 0.005, "maxSteps": 340, "maxEpochs": 1.0, "batchTokens": 2048,
                "weightDecay": 0.1, "loadBalancingLossWeight": 0.01, "auxiliaryLossWeight": 0.001,
                "validationEvery": 100, "checkpointEvery": 50,
            },
            "seed": 0,
            "runID": "",
        },
        "sha256:4e0cdbdb5da6a45294fbbfe38641f9bfcefa58c66346eb0b38c37329ef74e8e8",
    ),
    (
        {
            "parent": {"revision": "general-1", "path": "p", "digest": "sha256:" + "2" * 64, "ancestry": []},
            "data": {"path": "s", "digest": "sha256:" + "1" * 64},
            "training": {
                "method": "Full", "learningRate": 0.001, "maxEpochs": 1.0, "batchTokens": 4096, "weightDecay": 0.1,
                "loadBalancingLossWeight": 0.01, "auxiliaryLossWeight": 0.001, "validationEvery": 100,
                "checkpointEvery": 50,
            },
            "seed": 0,
            "runID": "",
        },
        "sha256:700c3fe1f3267fe91a65ad03f643cf0b5201d849b58845252552e81d9c0e1817",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "digest"), RECORDED)
def test_a_revision_of_an_earlier_operator_keeps_its_identity(inputs: dict[str, Any], digest: str) -> None:
    assert inputs_digest(Inputs.model_validate(inputs)) == digest


def test_an_expert_that_an_earlier_operator_trained_is_not_trained_again(served: World) -> None:
    """Its object was written with the defaults of its time, and it has no revision but one of its time."""
    recorded = RECORDED[0][0]["training"]
    current = ExpertRevision.model_validate(
        {
            "metadata": {"name": "code-1"},
            "spec": served.revision("code-1").spec.model_dump(by_alias=True)
            | {
                "inputs": served.revision("code-1").spec.inputs.model_dump(by_alias=True)
                | {"training": recorded}
            },
        }
    )
    expert = changed(served.expert_state("code").expert, training=recorded)
    asked = current.spec.inputs.model_copy(update={"training": training_input(expert)})
    assert inputs_digest(asked) == inputs_digest(current.spec.inputs)
    assert cause_of(served, expert, current, current.spec.inputs.data.digest) is None


@pytest.mark.parametrize(
    "balancing", [{"scope": "Sequence"}, {"bias": "Sign"}, {"biasRate": 0.01}, {"against": "Base"}]
)
def test_of_balancing_only_what_differs_is_part_of_the_identity(
    served: World, balancing: dict[str, Any]
) -> None:
    expert = changed(served.expert_state("code").expert, training={"balancing": balancing})
    found = training_input(expert).revision_identity()["balancing"]
    assert isinstance(found, dict)
    assert list(found.values()) == list(balancing.values())


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
        ({"training": {"balancing": {"bias": "Sign"}}}, False, "SpecChanged"),
        ({"training": {"balancing": {"scope": "GlobalBatch"}}}, False, None),
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
    expert = changed(served.expert_state("code").expert, **spec)
    assert cause_of(served, expert, current, digest) == cause


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


def test_the_steps_between_validations_count_where_training_may_end_at_one(served: World) -> None:
    expert = served.expert_state("code").expert

    def fields(**training: object) -> dict[str, object]:
        spec = expert.spec.model_copy(update={"training": expert.spec.training.model_validate(training)})
        return training_input(expert.model_copy(update={"spec": spec})).revision_identity()

    assert fields(validationEvery=7) == fields()
    ending = fields(validationEvery=7, earlyStop={"patience": 2})
    assert ending.pop("validation_every") == 7
    assert ending.pop("early_stop") == {"patience": 2, "min_delta": 0}
    assert ending == fields()
