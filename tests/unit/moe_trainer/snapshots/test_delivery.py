"""What a delivery has to keep, and that one which does not leaves no trace in the store."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from moe_formats.failure import JobError
from moe_formats.gates import DropReason, Gates
from moe_formats.job_config import FilterName, SnapshotJob, SnapshotRef
from moe_formats.job_report import SnapshotHeadline

from ..conftest import Place

Prose = Callable[..., list[str]]

ENGLISH = (
    "the weather was fine and so we walked along the river until it was dark then we took the train home with our friends who "
    "had been waiting there since early morning because they would not leave without us although nobody asked them to"
)
GERMAN = (
    "das Wetter war schön und so gingen wir am Fluss entlang bis es dunkel war dann fuhren wir mit dem Zug nach Hause zu unseren "
    "Freunden die dort seit dem frühen Morgen gewartet hatten weil sie nicht ohne uns gehen wollten obwohl niemand darum bat"
)


def gated(place: Place, previous: SnapshotHeadline | None = None, **gates: Any) -> SnapshotJob:
    reference = SnapshotRef(path=previous.path, digest=previous.digest) if previous is not None else None
    return place.job("prose").model_copy(update={"gates": Gates(**gates), "previous": reference})


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def refusal(place: Place, job: SnapshotJob) -> str:
    """Why a delivery is refused; the store must be as it was."""
    before = files(place.store)
    with pytest.raises(JobError) as refused:
        place.snapshot(job)
    assert refused.value.reason == "DeliveryRefused"
    assert not refused.value.retryable
    assert files(place.store) == before
    return refused.value.message


def in_words(words: str, count: int, topic: str) -> list[str]:
    return [
        " ".join(random.Random(f"{topic}{number}").choices(words.split(), k=80)) for number in range(count)
    ]


def test_limits_that_are_kept_change_nothing(place: Place, prose: Prose) -> None:
    place.text("prose", prose(40))
    limits = {"max_dropped": {"total": 0.1}, "max_lost": 0.1, "min_new_bytes": 10, "max_new_bytes": 10**9}
    made = place.snapshot(gated(place, **limits, max_language_shift=0.2))
    assert made == place.snapshot(place.job("prose"))


def test_a_first_delivery_is_judged_too(place: Place, prose: Prose) -> None:
    place.text("prose", prose(40))
    message = refusal(place, gated(place, max_new_bytes=1000))
    size = sum(len(text) for text in prose(40))
    assert f"{size} bytes of its text are new, and spec.data.gates.maxNewBytes allows 1000" in message
    assert not files(place.store)


def test_a_delivery_of_junk_is_refused_with_its_counts(place: Place, prose: Prose) -> None:
    place.text("prose", prose(40))
    held = place.snapshot(place.job("prose"))
    for number in range(10):  # a fifth of all records
        (place.sources / "corpora" / "prose" / f"junk{number}.txt").write_bytes(b"\0\1\2")
    job = gated(place, held, max_dropped={"binary": 0.05, "total": 0.5})
    message = refusal(place, job)
    assert (
        "10 of 50 records are dropped as binary (20.00%), and spec.data.gates.maxDropped.binary allows 5.00%"
        in message
    )
    assert "total" not in message
    loose = gated(place, held, max_dropped={"binary": 0.2})
    assert place.snapshot(loose).digest == held.digest


def test_a_source_that_repeats_itself_is_refused_if_that_is_limited(place: Place, prose: Prose) -> None:
    place.jsonl("prose", [{"text": text} for text in prose(40) * 3])
    source = place.job("prose").sources[0].model_copy(update={"path": "prose/*.jsonl"})
    job = gated(place, max_dropped={"duplicate": 0.5}).model_copy(update={"sources": (source,)})
    assert "80 of 120 records are dropped as duplicate (66.67%)" in refusal(place, job)


def test_a_source_that_repeats_itself_is_the_same_snapshot(place: Place, prose: Prose) -> None:
    place.text("prose", prose(40))
    held = place.snapshot(place.job("prose"))
    for path in sorted((place.sources / "corpora" / "prose").iterdir()):
        path.with_name(f"again-{path.name}").write_bytes(path.read_bytes())
    assert place.snapshot(gated(place, held, max_lost=0, max_new_bytes=0)).digest == held.digest


def test_a_source_that_shrinks_is_refused_with_what_is_gone(place: Place, prose: Prose) -> None:
    place.text("prose", prose(40))
    held = place.snapshot(place.job("prose"))
    kept = sorted((place.sources / "corpora" / "prose").iterdir())[:20]
    for path in (place.sources / "corpora" / "prose").iterdir():
        if path not in kept:
            path.unlink()
    message = refusal(place, gated(place, held, max_lost=0.1))
    assert f"of the {held.documents} documents of the newest snapshot are gone" in message
    assert "spec.data.gates.maxLost allows 10.00%" in message
    place.text("prose", prose(40))
    assert place.snapshot(gated(place, held, max_lost=0.1)).digest == held.digest


def test_a_source_that_vanishes_is_missing_and_nothing_is_lost(place: Place, prose: Prose) -> None:
    place.text("prose", prose(40))
    held = place.snapshot(place.job("prose"))
    (place.sources / "corpora" / "prose").rename(place.sources / "corpora" / "gone")
    before = files(place.store)
    with pytest.raises(JobError, match="no file matches"):
        place.snapshot(place.job("prose"))
    assert files(place.store) == before
    (place.sources / "corpora" / "gone").rename(place.sources / "corpora" / "prose")
    assert place.snapshot(place.job("prose")).digest == held.digest


def test_small_deliveries_come_together_until_they_are_enough(place: Place, prose: Prose) -> None:
    place.text("prose", prose(40))
    held = place.snapshot(place.job("prose"))
    later = prose(40, "later")
    least = sum(len(text) for text in later[:15])
    place.text("prose", [*prose(40), *later[:10]])
    message = refusal(place, gated(place, held, min_new_bytes=least))
    assert f"are new, and spec.data.gates.minNewBytes asks for {least}" in message
    place.text("prose", [*prose(40), *later[:20]])
    made = place.snapshot(gated(place, held, min_new_bytes=least))
    assert made.newest is not None
    place.text("prose", [*prose(40), *later[:20]])
    assert place.snapshot(gated(place, made, min_new_bytes=least)).digest == made.digest, (
        "nothing new is not too little"
    )


def test_a_refused_delivery_is_judged_as_new_again_and_its_windows_are_those_of_one_never_refused(
    place: Place, prose: Prose, tmp_path: Path
) -> None:
    place.text("prose", prose(40))
    held = place.snapshot(place.job("prose"))
    place.text("prose", [*prose(40), *prose(40, "later")])
    refusal(place, gated(place, held, max_new_bytes=10))
    made = place.snapshot(gated(place, held, max_new_bytes=10**6))
    other = Place(tmp_path / "other")
    other.store.mkdir(parents=True)
    other.text("prose", prose(40))
    other.snapshot(other.job("prose"))
    other.text("prose", [*prose(40), *prose(40, "later")])
    assert other.snapshot(gated(other, held, max_new_bytes=10**6)) == made
    assert files(other.store) == files(place.store)


def test_new_text_in_another_language_is_refused_by_the_anchors(place: Place) -> None:
    place.text("prose", in_words(ENGLISH, 120, "walk"))
    held = place.snapshot(place.job("prose"))
    assert held.anchor.clusters >= 20
    more = in_words(ENGLISH, 30, "ride")
    place.text("prose", [*in_words(ENGLISH, 120, "walk"), *more, *in_words(GERMAN, 30, "fahrt")])
    message = refusal(place, gated(place, held, max_language_shift=0.3))
    assert "differ by 50.00% from those of the first holdout (en 100%)" in message
    assert place.snapshot(gated(place, held, max_language_shift=0.5)).digest != held.digest


def test_a_few_documents_say_nothing_about_languages(place: Place) -> None:
    place.text("prose", in_words(ENGLISH, 120, "walk"))
    held = place.snapshot(place.job("prose"))
    place.text("prose", [*in_words(ENGLISH, 120, "walk"), *in_words(GERMAN, 19, "fahrt")])
    assert place.snapshot(gated(place, held, max_language_shift=0.1)).digest != held.digest


def test_every_reason_that_can_be_counted_can_be_limited(place: Place, prose: Prose) -> None:
    """Records with each fault; whatever is counted, apart from files that cannot be read, has a limit."""
    faults: list[object] = ["[", {"other": 1}, {"text": ""}, {"text": "a\0b"}, {"text": "\ud800"}]
    lines = [fault if isinstance(fault, str) else json.dumps(fault) for fault in faults]
    place.jsonl("prose", [*lines, *({"text": text} for text in prose(40))])
    source = place.job("prose").sources[0].model_copy(update={"path": "prose/*.jsonl"})
    dropped = place.snapshot(place.job("prose", sources=(source,))).dropped
    assert len(dropped) >= 4
    assert set(dropped) | set(get_args(FilterName)) <= set(get_args(DropReason))
