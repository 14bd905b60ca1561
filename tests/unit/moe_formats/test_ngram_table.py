"""The Distilled strategy's table: what it computes, and what it refuses to load."""

import base64
import json
import math
from typing import Any

import pytest

from moe_formats import ngram_table
from moe_formats.ngram_table import MAX_TABLE_BYTES, ORDERS, buckets_for, buckets_of, load


def table(**changes: Any) -> bytes:
    """A table of two Experts in which the n-grams of `abcd` speak for the second."""
    rows = [bytearray(64), bytearray(64)]
    for bucket in buckets_of(b"abcd", 64):
        rows[1][bucket] = 100
    value = {
        "experts": ["first", "second"],
        "buckets": 64,
        "bias": [0.0, 0.0],
        "scale": 0.02,
        "temperature": 1.0,
        "weights": base64.b64encode(rows[0] + rows[1]).decode(),
    }
    return json.dumps(value | changes).encode()


def test_the_scores_are_the_documented_formula() -> None:
    score = load(table(bias=[0.5, 0.0], temperature=2.0)).score("abcd")
    ngrams = sum(len("abcd") - order + 1 for order in ORDERS)
    logit = 0.02 * 100 * ngrams / math.sqrt(ngrams)
    expected = 1 / (1 + math.exp((0.5 - logit) / 2))
    assert score["second"] == pytest.approx(expected)
    assert sum(score.values()) == pytest.approx(1)


def test_negative_weights_count_against_an_expert() -> None:
    rows = bytes([0] * 64 + [256 - 100] * 64)
    score = load(table(weights=base64.b64encode(rows).decode())).score("whatever")
    assert score["second"] < 0.01


def test_an_empty_text_is_scored_by_the_biases() -> None:
    assert load(table(bias=[math.log(3), 0.0])).score("") == pytest.approx({"first": 0.75, "second": 0.25})


def test_any_text_can_be_scored() -> None:
    for text in ("\0", "é", "\ud800", "x" * 100_000):
        assert sum(load(table(bias=[1.0, 0.0])).score(text).values()) == pytest.approx(1)


def test_a_temperature_flattens_without_changing_the_order() -> None:
    sharp, flat = (load(table(temperature=t)).score("abcd")["second"] for t in (0.5, 5.0))
    assert 0.5 < flat < sharp


def test_hashing_tells_lengths_and_places_apart_and_never_changes() -> None:
    assert len(buckets_of(b"abcd", 1024)) == 4 + 3 + 2 + 1
    assert buckets_of(b"aaaa", 1 << 16)[0] != buckets_of(b"aaaa", 1 << 16)[4]
    # Tables outlive programs: these numbers are part of the format's version 1.
    assert buckets_of(b"ab", 1 << 15) == [3797, 24431, 10991]


def test_a_table_for_any_number_of_experts_fits() -> None:
    for experts in (1, 2, 4, 64):
        buckets = buckets_for(experts)
        names = [f"expert-with-quite-a-long-name-{i:033}"[:63] for i in range(experts)]
        data = table(
            experts=names,
            buckets=buckets,
            bias=[-1.2345678901234567] * experts,
            weights=base64.b64encode(bytes(experts * buckets)).decode(),
        )
        assert len(data) <= MAX_TABLE_BYTES
        assert set(load(data).score("text")) == set(names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"buckets": 48}, "48 is not a power of two"),
        ({"buckets": 32}, "weights: 128 bytes, not 2 Experts × 32 buckets"),
        ({"weights": "%%%"}, "not base64"),
        ({"experts": ["first", "first"]}, "listed twice"),
        ({"experts": ["first", "Second!"]}, "experts.1: .*pattern"),
        ({"bias": [0.0]}, "bias: 1 values for 2 Experts"),
        ({"temperature": 0}, "temperature: .*greater than 0"),
        ({"version": 2}, "version: .*less than or equal to 1"),
    ],
)
def test_a_bad_table_is_refused_with_the_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(table(**changes))


def test_a_table_that_is_not_json_or_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        load(b"\x80\x04pickle")
    with pytest.raises(ValueError, match="at most 262144 are read"):
        load(b" " * (ngram_table.MAX_TABLE_BYTES + 1))
