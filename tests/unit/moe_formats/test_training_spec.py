"""One definition of every field that training reads: for users, for revisions and for Jobs."""

from typing import Any

import pytest

from moe_formats import left_out
from moe_formats.resources.training import Training
from moe_formats.training_spec import EarlyStop, TrainingFields, TrainingSpec

#: What only an Expert's spec has: how often and where training runs.
OF_USERS_ONLY = {"max_attempts", "resources"}


def test_users_and_records_have_the_fields_of_the_one_definition() -> None:
    fields = set(TrainingFields.model_fields)
    assert set(Training.model_fields) - fields == OF_USERS_ONLY
    assert set(TrainingSpec.model_fields) - fields == {"replay_share"}


def test_every_field_that_changes_weights_has_a_line_in_the_table_of_revisions() -> None:
    """Without a line, a new field would give every existing revision another digest, and all would be trained again."""
    assert set(left_out.OF_REVISIONS) == set(TrainingSpec.model_fields) - left_out.NO_WEIGHTS_CHANGE


def test_every_field_has_a_line_in_the_table_of_checkpoints() -> None:
    """Without a line, a new field would make every existing checkpoint useless."""
    assert set(left_out.OF_CHECKPOINTS) == set(TrainingSpec.model_fields)


def test_a_field_that_a_record_lacks_has_the_value_of_the_frozen_table() -> None:
    read = TrainingSpec.model_validate({}).model_dump(mode="json")
    assert {name: read[name] for name in left_out.OF_REVISIONS} == left_out.OF_REVISIONS
    assert TrainingSpec().revision_identity() == {}


def test_a_default_for_users_may_differ_from_what_a_record_lacks() -> None:
    assert Training().load_balancing_loss_weight == Training().spec().load_balancing_loss_weight == 0.2
    assert TrainingSpec().load_balancing_loss_weight == 0.01


def test_a_spec_has_what_users_asked_for_and_their_defaults_for_the_rest() -> None:
    asked = Training.model_validate({"method": "LoRA", "lora": {"rank": 8}, "maxSteps": 7, "maxAttempts": 9})
    spec = asked.spec(replay_share=0.25)
    assert (spec.method, spec.lora.rank, spec.lora.alpha, spec.max_steps) == ("LoRA", 8, 32, 7)
    assert (spec.replay_share, spec.learning_rate, spec.validation_every) == (0.25, 0.001, 100)


def test_the_order_of_targets_is_lost() -> None:
    there, back = (
        Training.model_validate({"method": "LoRA", "lora": {"targets": targets}}).spec()
        for targets in (["FeedForward", "Attention"], ["Attention", "FeedForward"])
    )
    assert there == back
    assert there.lora.targets == ("Attention", "FeedForward")


#: What the trainer's own defaults were when checkpoints were first known by what differs from them.
BEGINNING = {
    "learning_rate": 0.0003,
    "load_balancing_loss_weight": 0.2,
    "validation_every": 200,
    "checkpoint_every": 100,
}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, {}),
        ({"learning_rate": 0.001}, {"learning_rate": 0.001}),
        ({"recompute": True}, {"recompute": True}),
        ({"early_stop": EarlyStop()}, {"early_stop": {}}),
        ({"early_stop": EarlyStop(patience=5)}, {"early_stop": {"patience": 5}}),
        ({"balancing": {"bias": "Sign"}}, {"balancing": {"bias": "Sign"}}),
        ({"lora": {"targets": ["Attention"]}}, {"lora": {"targets": ["Attention"]}}),
    ],
)
def test_a_checkpoint_is_known_by_what_differs_from_the_defaults_of_the_beginning(
    changes: dict[str, Any], found: dict[str, Any]
) -> None:
    assert TrainingSpec.model_validate(BEGINNING | changes).checkpoint_identity() == found


def test_the_schema_of_records_has_the_bounds_of_no_number_that_users_set() -> None:
    """Revisions of this CRD were always written without; a CRD is never tightened."""
    schema = TrainingSpec.model_json_schema()["properties"]
    assert not {"minimum", "maximum"} & set(schema["learningRate"])
    assert schema["maxSteps"]["anyOf"][0] == {"type": "integer"}
    assert Training.model_json_schema()["properties"]["learningRate"]["maximum"] == 1
