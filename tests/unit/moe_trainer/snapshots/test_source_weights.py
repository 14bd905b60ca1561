"""Sources with weights: what a snapshot keeps of them."""

import json
from collections import Counter

import pytest

from moe_formats.failure import JobError
from moe_formats.job_config import Source
from moe_trainer.snapshots.layout import read_documents, read_record

from ..conftest import Place
from ..test_snapshot import Prose


def sources(*weights: float | None) -> tuple[Source, ...]:
    return tuple(
        Source(root="corpora", path=f"{name}/*.txt", format="text", weight=weight)
        for name, weight in zip(("a", "b", "c"), weights, strict=False)
    )


@pytest.fixture
def two(place: Place, prose: Prose) -> Place:
    place.text("a", prose(30, "a"))
    place.text("b", [*prose(10, "b"), *prose(5, "a")])
    return place


def test_documents_know_their_source_the_first_that_has_them(two: Place) -> None:
    made = two.snapshot(two.job("a", sources=sources(3, None)))
    assert read_record(two.store / made.path).weights == (3, 1)
    counts: Counter[tuple[int | None, str]] = Counter()
    for document in read_documents(two.store / made.path):
        counts[document.source, document.text[0]] += 1
    assert set(counts) == {(0, "a"), (1, "b")}
    report = json.loads((two.store / made.path / "report.json").read_text())
    assert [source["trained"] for source in report["sources"]] == [counts[0, "a"], counts[1, "b"]]


def test_weights_are_part_of_what_the_data_is_and_their_absence_is_not(two: Place) -> None:
    plain, weighed, other = (
        two.snapshot(two.job("a", sources=sources(*weights))) for weights in ((None, None), (1, 1), (1, 2))
    )
    assert len({plain.digest, weighed.digest, other.digest}) == 3
    assert plain.anchor == weighed.anchor == other.anchor
    assert read_record(two.store / plain.path).weights is None
    assert {document.source for document in read_documents(two.store / plain.path)} == {None}


def test_weights_that_leave_nothing_are_refused_before_anything_is_read(two: Place) -> None:
    with pytest.raises(JobError, match=r"InvalidConfig.*sources.*all weights are 0"):
        two.snapshot(two.job("a", sources=sources(0, 0)))
    assert not list(two.store.iterdir())


def test_a_source_with_a_weight_and_nothing_to_train_on_is_refused(two: Place, prose: Prose) -> None:
    two.text("c", prose(5, "a"))
    with pytest.raises(JobError, match=r"DataEmpty.*sources\[2\] \(corpora/c/\*.txt\) has weight 2"):
        two.snapshot(two.job("a", sources=sources(1, 1, 2)))
    assert two.snapshot(two.job("a", sources=sources(1, 1, 0))).documents > 0
