"""An Expert that specialises again: it reads what is new, and rehearses text of its first snapshot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.trainer.training.conftest import Pool

from moe_formats import store
from moe_formats.failure import JobError
from moe_formats.job_config import (
    ArtefactRef,
    ExpertRef,
    HoldoutRule,
    Rehearsal,
    SnapshotJob,
    SnapshotRef,
    Source,
    TrainJob,
)
from moe_formats.job_report import SnapshotHeadline
from moe_trainer import snapshot, train
from moe_trainer.environment import Environment
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.preset_model import Model
from moe_trainer.snapshots.layout import read_documents
from moe_trainer.streaming.tokens import open_streams, validates
from moe_trainer.text.tokenizer import BOS, EOS, ByteTokenizer
from moe_trainer.training.data import tokens_folder
from moe_trainer.training.run import Run, prepare, training_inputs

Write = Callable[[int], str]

SOURCES = (Source(root="prose", path="*.txt", format="text"),)


def make(root: Path, texts: list[str], *sources: Source) -> SnapshotHeadline:
    """Make a snapshot of an Expert's texts as they are now; they lie in the first source."""
    folder = root / "sources" / "prose"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)
    job = SnapshotJob(
        pool_uid="pool-uid",
        expert=ExpertRef(name="prose", uid="prose-uid"),
        sources=sources or SOURCES,
        holdout=HoldoutRule(fraction=0.2, salt="salt"),
    )
    return snapshot.run(job, Environment(store=root / "store", sources=root / "sources"))


@pytest.fixture
def snapshots(tmp_path: Path, text: Write) -> list[SnapshotHeadline]:
    """Three snapshots: each keeps half of the one before, or all of it, and has new text."""
    (tmp_path / "store").mkdir()
    return [make(tmp_path, [text(n) for n in range(*numbers)]) for numbers in ((0, 60), (30, 90), (30, 130))]


@pytest.fixture
def pool(tmp_path: Path, small_model: Model, snapshots: list[SnapshotHeadline]) -> Pool:
    digest = checkpoint_format.write(tmp_path / "store", "parent", small_model, ByteTokenizer(), "{}")
    ancestry = tuple(ref(made) for made in snapshots[:2])
    parent = ArtefactRef(revision="prose-2", path="parent", digest=digest, ancestry=ancestry)
    return Pool(tmp_path, snapshots[2], parent)


def ref(made: SnapshotHeadline) -> SnapshotRef:
    return SnapshotRef(path=made.path, digest=made.digest)


def asked(pool: Pool, training: dict[str, Any] | None = None, **fields: Any) -> TrainJob:
    """Return a job of the pool with a rehearsal."""
    first, known = pool.parent.ancestry[0], pool.parent.ancestry[-1]
    rehearsal = {
        "share": 0.25,
        "rehearsed": first,
        "known": known,
        "max_steps": 12,
        "max_epochs": 4.0,
        "rate_share": 0.3,
    }
    found = pool.job(**(training or {}))
    return found.model_copy(update={"rehearsal": Rehearsal.model_validate(rehearsal | fields)})


def texts(pool: Pool, data: SnapshotRef | SnapshotHeadline, *, validating: bool = False) -> set[str]:
    """Return the training text of a snapshot that is kept apart for validation, or the rest of it."""
    documents = read_documents(pool.store / data.path)
    return {document.text for document in documents if validates(document) is validating}


def read_by(pool: Pool, run: Run) -> list[set[str]]:
    """Return the documents of each of a run's streams."""
    folder = f"{tokens_folder(run.job)}/{store.short(training_inputs(run.job))}"
    found = []
    for stream in open_streams(pool.store, folder).training:
        data = bytes(0 if i in (BOS, EOS) else i for i in stream.tokens.tolist())
        found.append({part.decode() for part in data.split(b"\0") if part})
    return found


def test_new_is_what_neither_earlier_snapshot_has_and_the_first_is_rehearsed(pool: Pool) -> None:
    run = prepare(asked(pool, max_steps=10_000), pool.store)
    new, rehearsed = read_by(pool, run)
    first, second = pool.parent.ancestry
    known = texts(pool, first) | texts(pool, second)
    assert new == texts(pool, pool.data) - known
    assert len(new) > 20
    assert rehearsed == texts(pool, first)
    assert rehearsed - texts(pool, pool.data)  # also what is no longer in the sources


def test_a_quarter_of_every_batch_is_rehearsed(pool: Pool) -> None:
    run = prepare(asked(pool, {"batch_tokens": 1024}), pool.store)
    assert [(s.name, s.share) for s in run.streams.training] == [("data", 0.75), ("rehearsal", 0.25)]
    _, rehearsed = read_by(pool, run)
    for step in range(3):
        rows = run.batches.batch(step).tolist()
        first = [row for row in rows if any(piece in "".join(rehearsed) for piece in _pieces(row))]
        assert (len(first), len(rows)) == (4, 16)
        assert not run.batches.replayed(step).any()


def _pieces(row: list[int]) -> list[str]:
    """Return the longest piece of a document in a block."""
    data = bytes(0 if i in (BOS, EOS) else i for i in row)
    return [max((part.decode() for part in data.split(b"\0")), key=len)]


def test_without_a_share_only_what_is_new_is_read(pool: Pool) -> None:
    run = prepare(asked(pool, share=0.0), pool.store)
    (new,) = read_by(pool, run)
    with_share = read_by(pool, prepare(asked(pool), pool.store))[0]
    assert new == with_share


def test_the_base_s_replay_keeps_its_share_of_every_batch(pool: Pool, text: Write) -> None:
    theirs = snapshot.run(
        SnapshotJob(
            pool_uid="pool-uid",
            expert=ExpertRef(name="general", uid="general-uid"),
            sources=(Source(root="general", path="*.txt", format="text"),),
            holdout=HoldoutRule(fraction=0.2, salt="salt"),
        ),
        _general(pool.root, text),
    )
    pool.parent = pool.parent.model_copy(update={"ancestry": (ref(theirs), *pool.parent.ancestry)})
    first, known = pool.parent.ancestry[1:]
    run = prepare(asked(pool, {"replay_share": 0.2}, rehearsed=first, known=known), pool.store)
    shares = [(stream.name, round(stream.share, 9)) for stream in run.streams.training]
    assert shares == [("data", 0.6), ("rehearsal", 0.2), ("replay", 0.2)]


def _general(root: Path, text: Write) -> Environment:
    (root / "sources" / "general").mkdir()
    for number in range(40):
        (root / "sources" / "general" / f"{number}.txt").write_text(text(500 + number))
    return Environment(store=root / "store", sources=root / "sources")


@pytest.mark.parametrize(("max_steps", "max_epochs", "expected"), [(12, 40.0, 12), (10_000, 2.0, None)])
def test_the_smaller_of_the_two_limits_holds(
    pool: Pool, max_steps: int, max_epochs: float, expected: int | None
) -> None:
    run = prepare(asked(pool, {"max_steps": 7}, max_steps=max_steps, max_epochs=max_epochs), pool.store)
    if expected is not None:
        assert run.steps == expected
    else:
        passes = dict(zip(("data", "rehearsal"), run.batches.passes(run.steps), strict=True))
        assert 1.9 < passes["data"] < 2.1


def test_a_snapshot_with_nothing_new_is_an_error(pool: Pool) -> None:
    with pytest.raises(
        JobError, match=r"DataEmpty.*all \d+ documents of the snapshot are in the Expert's earlier"
    ):
        prepare(asked(pool, known=ref(pool.data)), pool.store)  # type: ignore[arg-type]


def test_an_altered_snapshot_is_not_rehearsed(pool: Pool) -> None:
    documents = pool.store / pool.parent.ancestry[0].path / "documents.jsonl"
    documents.write_bytes(documents.read_bytes().replace(b"alpha", b"omega", 1))
    with pytest.raises(JobError, match=r"ArtefactCorrupt.*documents.jsonl"):
        prepare(asked(pool), pool.store)


def test_only_sources_with_new_text_are_read_by_their_weights(pool: Pool, text: Write) -> None:
    old, late = pool.root / "sources" / "old", pool.root / "sources" / "late"
    for folder, numbers in ((old, range(30, 60)), (late, range(1000, 1040))):
        folder.mkdir()
        for number in numbers:
            (folder / f"{number}.txt").write_text(text(number))
    sources = [
        Source(root=root, path="*.txt", format="text", weight=weight)
        for root, weight in (("prose", 1.0), ("old", 5.0), ("late", 3.0))
    ]
    pool.data = make(pool.root, [text(n) for n in range(2000, 2040)], *sources)
    run = prepare(asked(pool, share=0.5), pool.store)
    shares = [(stream.name, stream.share) for stream in run.streams.training]
    assert shares == [("source-0", 0.125), ("source-2", 0.375), ("rehearsal", 0.5)]


def test_early_stop_does_not_apply_where_the_new_text_has_none_to_validate_on(
    pool: Pool, text: Write
) -> None:
    first = next(n for n in range(3000, 4000) if not _kept_apart(pool, text, n))
    pool.data = make(pool.root, [text(n) for n in range(first, first + 4)])
    job = asked(pool, {"early_stop": {"patience": 1}}, max_steps=3, max_epochs=100.0)
    assert not texts(pool, pool.data, validating=True)
    made = pool.train(job)
    assert made.steps == 3
    assert pool.report(made)["validations"] == {}


def _kept_apart(pool: Pool, text: Write, first: int) -> bool:
    made = make(pool.root, [text(n) for n in range(first, first + 4)])
    return bool(texts(pool, made, validating=True))


def test_a_checkpoint_of_another_rehearsal_is_of_other_inputs(pool: Pool) -> None:
    plain = training_inputs(pool.job())
    found = {
        training_inputs(asked(pool)),
        training_inputs(asked(pool, share=0.0)),
        training_inputs(asked(pool, max_steps=11)),
    }
    assert len(found | {plain}) == 4
    moved = pool.parent.ancestry[0].model_copy(update={"path": "elsewhere"})
    assert training_inputs(asked(pool, rehearsed=moved)) == training_inputs(asked(pool))


def test_a_run_that_was_interrupted_continues_with_the_same_bits(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pool.train(asked(pool, {"run": "unbroken"}))
    real = train.take_step

    def interrupted(run: Run) -> float | None:
        if run.step == 8:
            raise InterruptedError
        return real(run)

    monkeypatch.setattr(train, "take_step", interrupted)
    with pytest.raises(InterruptedError):
        pool.train(asked(pool))
    monkeypatch.setattr(train, "take_step", real)
    made = pool.train(asked(pool, {"attempt": 2}))
    assert made.resumed_from == 6
    assert pool.report(made)["losses"] == pool.report(whole)["losses"]
    assert pool.weights(made) == pool.weights(whole)


def test_no_more_is_rehearsed_than_the_run_reads(pool: Pool) -> None:
    _, rehearsed = prepare(asked(pool, max_steps=2), pool.store).streams.training
    assert 0 < rehearsed.documents < 10


def test_the_rate_warms_up_again_to_a_lower_peak(pool: Pool) -> None:
    schedule = {"warmup_fraction": 0.25, "schedule": "Constant", "learning_rate": 0.01}
    run = prepare(asked(pool, schedule, rate_share=0.25, max_steps=12), pool.store)
    rates = []
    for _ in range(run.steps):
        rates.append(run.rate)
        run.curve.losses.append(None)
    assert rates == pytest.approx([0.0025 / 3, 0.0050 / 3] + [0.0025] * 10)
