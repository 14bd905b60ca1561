import os
import random
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moe_formats import store
from moe_formats.failure import JobError
from moe_formats.job_config import Filter, Source, parse_job_config
from moe_trainer import limits
from moe_trainer.deduplication.fingerprints import read_fingerprints, read_known_documents, read_registry
from moe_trainer.evaluation.segments import tainted_clusters
from moe_trainer.snapshots.holdouts import read_windows
from moe_trainer.snapshots.layout import read_documents, read_record
from moe_trainer.storage.committed import verify

from .conftest import Place

Prose = Callable[..., list[str]]


def texts(place: Place, path: str) -> set[str]:
    return {document.text for document in read_documents(place.store / path)}


def test_documents_are_split_between_training_and_the_anchor(place: Place, prose: Prose) -> None:
    documents = prose(60)
    place.text("prose", documents)
    made = place.snapshot(place.job("prose"))
    trained, held = texts(place, made.path), texts(place, made.anchor.path)
    assert trained | held == set(documents)
    assert not trained & held
    assert made.anchor.clusters == len(held) > 5
    assert made.documents == len(trained)
    assert made.train_bytes == sum(len(text) for text in trained)
    assert made.newest is None
    verify(place.store, made.anchor.path, made.anchor.digest)


def test_the_same_data_is_the_same_snapshot_whatever_its_files_are_called(place: Place, prose: Prose) -> None:
    documents = prose(40)
    place.text("prose", documents)
    first = place.snapshot(place.job("prose"))
    shutil.rmtree(place.sources / "corpora" / "prose")
    place.text("prose", random.Random(0).sample(documents, len(documents)))
    before = sorted(place.store.rglob("*"))
    assert place.snapshot(place.job("prose")) == first
    assert sorted(place.store.rglob("*")) == before


def test_another_pool_makes_the_same_snapshot_byte_for_byte(place: Place, prose: Prose) -> None:
    place.text("prose", prose(40))
    first = place.snapshot(place.job("prose"))
    other = place.job("prose").model_copy(update={"pool_uid": "other-uid"})
    second = place.snapshot(other)
    assert (second.digest, second.anchor.digest) == (first.digest, first.anchor.digest)
    record = (place.store / first.path / "documents.jsonl").read_bytes()
    assert record == (place.store / second.path / "documents.jsonl").read_bytes()


def test_new_data_adds_one_window_of_the_new_clusters_only(place: Place, prose: Prose) -> None:
    old, new = prose(40), prose(40, "later")
    place.text("prose", old)
    first = place.snapshot(place.job("prose"))
    place.text("prose", [*old, *new])
    second = place.snapshot(place.job("prose"))
    assert second.digest != first.digest
    assert second.anchor == first.anchor
    assert second.newest is not None
    window = texts(place, second.newest.path)
    assert window and window <= set(new)
    assert not texts(place, second.path) & (window | texts(place, first.anchor.path))


def test_an_edited_copy_of_a_held_out_document_is_neither_trained_on_nor_a_new_window(
    place: Place, prose: Prose
) -> None:
    documents = prose(40)
    place.text("prose", documents)
    first = place.snapshot(place.job("prose"))
    held = sorted(texts(place, first.anchor.path))
    place.text("prose", [*documents, *(text + " with three more" for text in held)])
    second = place.snapshot(place.job("prose"))
    assert second.newest is None
    assert texts(place, second.path) == texts(place, first.path)


def test_a_window_that_is_too_small_is_taken_over_by_the_next(place: Place, prose: Prose) -> None:
    old, new = prose(12), prose(60, "later")
    place.text("prose", old)
    first = place.snapshot(place.job("prose", min_clusters=10))
    assert first.anchor.clusters < 10
    place.text("prose", [*old, *new])
    second = place.snapshot(place.job("prose", min_clusters=10))
    assert second.newest is None
    assert second.anchor.clusters >= 10
    assert texts(place, first.anchor.path) <= texts(place, second.anchor.path)
    verify(place.store, first.anchor.path, first.anchor.digest)


def test_what_one_expert_holds_out_no_other_expert_of_the_pool_trains_on(place: Place, prose: Prose) -> None:
    documents = prose(60)
    place.text("prose", documents)
    domain = place.snapshot(place.job("prose"))
    held = texts(place, domain.anchor.path)
    place.text("copies", [text + " and a few words more" for text in documents])
    general = place.snapshot(place.job("copies", expert="general", fraction=0.01))
    assert general.dropped["heldOutElsewhere"] == len(held)
    trained = texts(place, general.path)
    assert not any(text.startswith(tuple(held)) for text in trained)
    assert not tainted_clusters(place.store / domain.anchor.path, [place.store / general.path])


def test_an_ancestor_that_trained_on_a_holdout_is_found_out(place: Place, prose: Prose) -> None:
    documents = prose(40)
    place.text("copies", [text + " and a few words more" for text in documents])
    general = place.snapshot(place.job("copies", expert="general", fraction=0.01))
    place.text("prose", [*documents, *prose(40, "unseen")])
    domain = place.snapshot(place.job("prose"))
    anchor = place.store / domain.anchor.path
    dirty = tainted_clusters(anchor, [place.store / general.path])
    assert dirty == {d.cluster for d in read_documents(anchor) if d.text in documents}
    assert 0 < len(dirty) < domain.anchor.clusters


def test_every_drop_is_counted_under_its_reason(place: Place, prose: Prose) -> None:
    good = prose(20)
    noise = ["#!/" * 200 + str(n) for n in range(3)]
    place.jsonl(
        "prose", [*({"text": t} for t in [*good, good[0], "short", good[1] + " a copy", *noise]), "{broken"]
    )
    filters = (
        Filter(name="length", min=20),
        Filter(name="characterRatio", min=0.6),
        Filter(name="nearDuplicate", threshold=0.8),
    )
    source = (Source(root="corpora", path="prose/*.jsonl", format="jsonl"),)
    made = place.snapshot(place.job("prose", sources=source, filters=filters))
    assert made.dropped == {
        "brokenRecord": 1,
        "duplicate": 1,
        "length": 1,
        "characterRatio": 3,
        "nearDuplicate": 1,
    }
    assert made.documents + len(texts(place, made.anchor.path)) == 20


def test_filters_that_leave_nothing_fail_and_say_what_they_dropped(place: Place, prose: Prose) -> None:
    place.text("prose", prose(10))
    with pytest.raises(JobError, match=r"DataEmpty.*10 dropped as length"):
        place.snapshot(place.job("prose", filters=(Filter(name="length", min=1e6),)))


@pytest.mark.parametrize(
    "rule",
    [
        Filter(name="length"),
        Filter(name="length", min=10, max=5),
        Filter(name="nearDuplicate", threshold=0.2),
    ],
)
def test_a_filter_without_meaning_is_refused(place: Place, prose: Prose, rule: Filter) -> None:
    place.text("prose", prose(10))
    with pytest.raises(JobError, match=f"InvalidConfig.*{rule.name}"):
        place.snapshot(place.job("prose", filters=(rule,)))


def test_a_small_holdout_is_reported_and_not_refused(place: Place, prose: Prose) -> None:
    place.text("prose", prose(3))
    made = place.snapshot(place.job("prose", fraction=0.01))
    assert made.anchor.clusters == 0
    assert made.documents == 3


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"context_tokens": 383}, "spec.training.contextTokens is 383"),
        ({"context_tokens": 4095, "segment_bytes": 3968}, "spec.training.contextTokens is 4095"),
        ({"preset": "tiny", "segment_bytes": 3968}, "spec.base.preset is 'tiny'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_read(
    place: Place, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(JobError, match=f"ContextTooShort: {message}"):
        place.snapshot(place.job("nowhere").model_copy(update=asked))
    assert list(place.store.iterdir()) == []


def test_a_window_counts_segments_of_the_pools_size(place: Place, prose: Prose) -> None:
    place.text("prose", ["".join(prose(12, f"p{number}")) for number in range(24)])
    job = place.job("prose")
    long = job.model_copy(update={"pool_uid": "other", "segment_bytes": 3968})
    many, few = place.snapshot(job).anchor, place.snapshot(long).anchor
    sizes = [len(text) for text in texts(place, many.path)]
    assert (many.digest, many.clusters) == (few.digest, few.clusters)
    assert many.segments == sum(size // 256 for size in sizes)
    assert few.segments == sum(size // 3968 for size in sizes) >= few.clusters


def test_a_job_of_the_default_size_says_what_it_said_before_there_were_sizes(place: Place) -> None:
    job = place.job("prose")
    assert "segmentBytes" not in job.to_json()
    assert parse_job_config(job.to_json()) == job
    long = job.model_copy(update={"segment_bytes": 3968})
    assert '"segmentBytes":3968' in long.to_json() and parse_job_config(long.to_json()) == long


def test_the_record_says_what_the_headline_says(place: Place, prose: Prose) -> None:
    place.text("prose", prose(20))
    made = place.snapshot(place.job("prose"))
    record = read_record(place.store / made.path)
    assert (record.digest, record.documents, record.anchor) == (made.digest, made.documents, made.anchor)


def test_a_snapshot_that_was_altered_on_disk_is_not_used_again(place: Place, prose: Prose) -> None:
    place.text("prose", prose(20))
    made = place.snapshot(place.job("prose"))
    documents = place.store / made.path / "documents.jsonl"
    documents.write_bytes(documents.read_bytes().replace(b"prose", b"verse", 1))
    with pytest.raises(JobError, match=r"ArtefactCorrupt.*documents.jsonl"):
        place.snapshot(place.job("prose"))


def test_a_registry_line_that_a_kill_cut_short_is_written_again_and_loses_no_other(
    place: Place, prose: Prose
) -> None:
    place.text("prose", prose(30))
    made = place.snapshot(place.job("prose"))
    registry = place.store / store.held_out_registry("pool-uid")
    whole = {entry.document: entry for entry in read_registry(registry.parent, registry.name)}
    registry.write_bytes(registry.read_bytes()[:-40])
    assert len(list(read_registry(registry.parent, registry.name))) == len(whole) - 1
    shutil.rmtree(place.store / made.path)
    assert place.snapshot(place.job("prose")) == made
    assert {entry.document: entry for entry in read_registry(registry.parent, registry.name)} == whole


_KILLED_AT = """
import os, sys
from pathlib import Path
calls, target = 0, int(sys.argv[1])

def count_down(real):
    def wrapped(*arguments, **keywords):
        global calls
        calls += 1
        if calls == target:
            os._exit(137)
        return real(*arguments, **keywords)
    return wrapped

os.fsync = count_down(os.fsync)
os.rename = count_down(os.rename)
from moe_trainer.main import main
code = main(["snapshot"])
print("calls", calls)
sys.exit(code)
"""


def test_killed_at_any_write_the_next_attempt_makes_the_same_snapshot(
    place: Place, prose: Prose, tmp_path: Path
) -> None:
    """The process ends without cleaning up before the k-th write to disk, for every third k."""
    old, new = prose(20), prose(20, "later")
    place.text("prose", old)
    place.snapshot(place.job("prose"))
    start = tmp_path / "start"
    shutil.copytree(place.store, start)
    place.text("prose", [*old, *new])
    expected = place.snapshot(place.job("prose"))
    killed, step = 0, 1
    while True:
        shutil.rmtree(place.store)
        shutil.copytree(start, place.store)
        code = _run_killed(place, step)
        if code == 0:
            break
        assert code == 137
        killed += 1
        assert place.snapshot(place.job("prose")) == expected
        windows = read_windows(place.store, store.windows("pool-uid", "prose-uid"))
        assert windows == [expected.anchor, expected.newest]
        leftovers = [p for p in place.store.rglob(".*new-*") if "snapshots" in str(p) or "holdouts" in str(p)]
        assert not leftovers
        step += 3
    assert killed >= 4


_KILLED_WHILE_READING = """
import os, sys
from moe_trainer.snapshots import intake
real, left = intake.read_source, int(sys.argv[1])

def count_down(*arguments):
    global left
    for document in real(*arguments):
        left -= 1
        if not left:
            os._exit(137)
        yield document

intake.read_source = count_down
from moe_trainer.main import main
sys.exit(main(["snapshot"]))
"""


def test_killed_while_it_reads_the_next_attempt_leaves_the_same_bytes(
    place: Place, prose: Prose, tmp_path: Path
) -> None:
    place.text("prose", prose(20))
    place.snapshot(place.job("prose"))
    place.text("prose", [*prose(20), *prose(20, "later")])
    start = tmp_path / "start"
    shutil.copytree(place.store, start)
    expected = place.snapshot(place.job("prose"))
    whole = bytes_of(place.store)
    for document in (1, 17, 40):
        shutil.rmtree(place.store)
        shutil.copytree(start, place.store)
        assert _run_killed(place, document, _KILLED_WHILE_READING) == 137
        assert bytes_of(place.store) == bytes_of(start), "nothing is written before everything is read"
        assert place.snapshot(place.job("prose")) == expected
        assert bytes_of(place.store) == whole


def bytes_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _run_killed(place: Place, step: int, script: str = _KILLED_AT) -> int:
    environment = {
        "PATH": os.environ["PATH"],
        "MOE_JOB_CONFIG": place.job("prose").to_json(),
        "MOE_STORE": str(place.store),
        "MOE_SOURCES": str(place.sources),
        "MOE_TERMINATION_LOG": os.devnull,
    }
    command = [sys.executable, "-c", script, str(step)]
    return subprocess.run(command, env=environment, capture_output=True, timeout=250).returncode


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["held-out.jsonl", "clusters.jsonl", "windows.jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_a_pool_remembers_is_neither_read_nor_written_through_a_pipe_or_a_link(
    place: Place, prose: Callable[[int, str], list[str]], tmp_path: Path, name: str, kind: str
) -> None:
    place.text("maths", prose(30, "maths"))
    place.snapshot(place.job("maths"))
    (path,) = place.store.rglob(name)
    outside = tmp_path / "outside"
    outside.write_bytes(path.read_bytes())
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(outside)
    before = outside.read_bytes()
    place.text("maths", prose(40, "maths"))
    with pytest.raises(JobError, match=f"PathNotAllowed: .*{name} is a (named pipe|link that leads out)"):
        place.snapshot(place.job("maths"))
    assert outside.read_bytes() == before


@pytest.mark.parametrize("where", ["snapshots", "holdouts"])
def test_a_file_that_was_added_to_a_snapshot_or_a_holdout_is_named(
    place: Place, prose: Callable[[int, str], list[str]], where: str
) -> None:
    place.text("maths", prose(30, "maths"))
    place.snapshot(place.job("maths"))
    (folder,) = next(place.store.rglob(where)).iterdir()
    (folder / "more.jsonl").write_text('{"text": "added"}')
    if where == "holdouts":
        place.text("maths", prose(40, "maths"))
    with pytest.raises(
        JobError, match=r"ArtefactCorrupt: .*holds more.jsonl, which its manifest does not list"
    ):
        place.snapshot(place.job("maths"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "link"])
@pytest.mark.parametrize(
    "part", ["pools", "pools/pool-uid", "pools/pool-uid/experts", "pools/pool-uid/experts/maths-uid"]
)
def test_nothing_is_read_or_written_through_a_planted_folder(
    place: Place, prose: Prose, tmp_path: Path, part: str, kind: str
) -> None:
    place.text("maths", prose(30, "maths"))
    place.snapshot(place.job("maths"))
    outside = tmp_path / "outside"
    (place.store / part).rename(outside)
    if kind == "pipe":
        os.mkfifo(place.store / part)
    else:
        (place.store / part).symlink_to(outside)
    before = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
    place.text("maths", prose(40, "maths"))
    with pytest.raises(JobError, match=r"PathNotAllowed: .* (is a link that leads out|is no folder)"):
        place.snapshot(place.job("maths"))
    assert {path: path.stat().st_mtime_ns for path in outside.rglob("*")} == before


def test_lines_that_are_too_long_are_never_held(
    place: Place, prose: Prose, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.text("maths", prose(30, "maths"))
    made = place.snapshot(place.job("maths"))
    root, registry = place.store, store.held_out_registry("pool-uid")
    clusters = store.clusters("pool-uid", "maths-uid")
    known = [entry.document for entry in read_registry(root, registry)]
    whole = (root / registry).read_bytes()
    for path in (registry, clusters):
        with (root / path).open("ab") as file:
            for _ in range(64):
                file.write(b"x" * (1 << 20))
            file.write(b"\n")
        if path == registry:
            (first,) = (line for line in whole.splitlines(keepends=True)[:2] if line.strip())
            (root / path).write_bytes((root / path).read_bytes() + first)
    tracemalloc.start()
    assert [entry.document for entry in read_registry(root, registry)] == [*known, known[0]]
    with pytest.raises(
        JobError, match=r"ArtefactCorrupt: line \d+ of pools/pool-uid/experts/maths-uid/clusters"
    ):
        list(read_known_documents(root, clusters, 1))
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    monkeypatch.setattr(limits, "DOCUMENT_BYTES", 50)
    with pytest.raises(
        JobError, match=r"ArtefactCorrupt: .*line 1 of documents.jsonl has more than 50 bytes"
    ):
        texts(place, made.path)
    monkeypatch.setattr(limits, "FINGERPRINT_BYTES", 50)
    with pytest.raises(JobError, match=r"ArtefactCorrupt: .*line 1 of fingerprints.jsonl has more than 50"):
        list(read_fingerprints(root / made.path, "fingerprints.jsonl"))
    monkeypatch.setattr(limits, "WINDOWS_BYTES", 50)
    with pytest.raises(JobError, match=r"PathNotAllowed: .*windows.jsonl has more than 50 bytes"):
        read_windows(root, store.windows("pool-uid", "maths-uid"))
