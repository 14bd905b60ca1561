"""What a model has to see to be measured: 384 tokens, or 4096 in a pool of long segments."""

import json
from typing import Any

import pytest

from moe_formats import context_length
from moe_formats.failure import JobError
from moe_formats.segment_size import SegmentBytes

OTHER_POOL = "or create the Expert in a pool with segmentBytes 256"


@pytest.mark.parametrize(
    ("tokens", "size", "says"),
    [
        (None, 256, None),
        (None, 3968, None),
        (384, 256, None),
        (4096, 3968, None),
        (
            383,
            256,
            "spec.training.contextTokens is 383, but the pool's spec.evaluation.segmentBytes is 256, and with the text "
            "before them such segments take 384 tokens. Set it to 384 or more, or leave it out",
        ),
        (
            4095,
            3968,
            "spec.training.contextTokens is 4095, but the pool's spec.evaluation.segmentBytes is 3968, and with the text "
            f"before them such segments take 4096 tokens. Set it to 4096 or more, or leave it out, {OTHER_POOL}",
        ),
    ],
)
def test_training_sequences_have_as_many_tokens(
    tokens: int | None, size: SegmentBytes, says: str | None
) -> None:
    assert context_length.shortfall_of_sequences(tokens, size) == says


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        (None, 3968, None),
        ("unknown", 3968, None),
        ("tiny", 256, None),
        (
            "tiny",
            3968,
            "spec.base.preset is 'tiny', which sees 384 tokens, but the pool's spec.evaluation.segmentBytes is 3968, and "
            f"with the text before them such segments take 4096 tokens. Use a base that sees at least 4096 tokens, {OTHER_POOL}",
        ),
    ],
)
def test_presets_see_as_many(name: str | None, size: SegmentBytes, says: str | None) -> None:
    assert context_length.shortfall_of_preset(name, size) == says


@pytest.mark.parametrize(
    ("config", "size", "field"),
    [
        ({"max_position_embeddings": 384}, 256, None),
        ({"max_position_embeddings": 383}, 256, "max_position_embeddings in config.json of the base hub/m is 383,"),
        ({"max_position_embeddings": 4096}, 3968, None),
        ({"max_position_embeddings": 2048}, 3968, "max_position_embeddings in config.json of the base hub/m is 2048,"),
        ({"n_positions": 1024}, 256, None),
        ({"n_positions": 1024}, 3968, "n_positions in config.json of the base hub/m is 1024,"),
        ({"text_config": {"max_position_embeddings": 2048}}, 3968, "max_position_embeddings in"),
        ({"text_config": {"max_position_embeddings": 8192}, "max_position_embeddings": 77}, 3968, None),
        ({"max_position_embeddings": "many"}, 3968, None),  # loading says what is wrong with it
        ({}, 3968, None),
        ([], 3968, None),
    ],
)  # fmt: skip
def test_checkpoints_see_as_many_where_their_config_says_it(
    config: Any, size: SegmentBytes, field: str | None
) -> None:
    found = context_length.shortfall_of_checkpoint("hub/m", json.dumps(config).encode(), size)
    assert found is None if field is None else found is not None and found.startswith(field)


def test_a_config_that_cannot_be_read_is_left_to_loading() -> None:
    assert context_length.shortfall_of_checkpoint("hub/m", b"{", 3968) is None


def test_the_first_finding_ends_a_job() -> None:
    context_length.check(None, None)
    with pytest.raises(JobError, match=r"^ContextTooShort: one\.$"):
        context_length.check(None, "one", "two")
