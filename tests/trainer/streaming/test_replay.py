"""Text of the base's own training in an Expert's batches, and sources by their weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.trainer.training.conftest import Pool

from moe_formats import store
from moe_formats.failure import JobError
from moe_formats.job_config import ArtefactRef, ExpertRef, HoldoutRule, SnapshotJob, SnapshotRef, Source
from moe_formats.job_report import SnapshotHeadline
from moe_trainer import snapshot
from moe_trainer.environment import Environment
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.preset_model import Model
from moe_trainer.snapshots.layout import read_documents
from moe_trainer.streaming.tokens import open_streams
from moe_trainer.text.tokenizer import BOS, EOS, ByteTokenizer
from moe_trainer.training.data import tokens_folder
from moe_trainer.training.run import Run, prepare

Write = Callable[[int], str]

#: All of the base's text is drawn: the run would read more of it than there is.
LONG = {"max_steps": None, "max_epochs": 20.0}


def make(root: Path, name: str, texts: dict[str, list[str]], *weights: float) -> SnapshotHeadline:
    """Make a snapshot of an Expert's texts, by the folder that they lie in."""
    for folder, written in texts.items():
        (root / "sources" / folder).mkdir(parents=True)
        for number, text in enumerate(written):
            (root / "sources" / folder / f"{number}.txt").write_text(text)
    sources = tuple(
        Source(root=folder, path="*.txt", format="text", weight=weights[number] if weights else None)
        for number, folder in enumerate(texts)
    )
    job = SnapshotJob(
        pool_uid="pool-uid",
        expert=ExpertRef(name=name, uid=f"{name}-uid"),
        sources=sources,
        holdout=HoldoutRule(fraction=0.2, salt="salt"),
    )
    return snapshot.run(job, Environment(store=root / "store", sources=root / "sources"))


@pytest.fixture
def pool(tmp_path: Path, small_model: Model, text: Write) -> Pool:
    """`prose` joins after its base: that has read edited copies of its documents, and some as they are."""
    (tmp_path / "store").mkdir()
    copies = [text(n) + " And three words more." for n in range(30)] + [text(n) for n in range(30, 40)]
    general = make(tmp_path, "general", {"general": [*(text(500 + n) for n in range(40)), *copies]})
    prose = make(tmp_path, "prose", {"prose": [text(n) for n in range(60)]})
    ancestry = (SnapshotRef(path=general.path, digest=general.digest),)
    digest = checkpoint_format.write(tmp_path / "store", "parent", small_model, ByteTokenizer(), "{}")
    return Pool(
        tmp_path, prose, ArtefactRef(revision="general-1", path="parent", digest=digest, ancestry=ancestry)
    )


def texts(pool: Pool, path: str) -> set[str]:
    return {document.text for document in read_documents(pool.store / path)}


def read_by(pool: Pool, run: Run, stream: int) -> set[str]:
    """Return the documents of one of a run's streams."""
    (folder,) = (path for path in (pool.store / tokens_folder(run.job)).iterdir() if path.is_dir())
    ids = open_streams(folder.parent, folder.name).training[stream].tokens.tolist()
    data = bytes(0 if i in (BOS, EOS) else i for i in ids)
    return {part.decode() for part in data.split(b"\0") if part}


def test_the_bases_text_is_replayed_but_for_what_is_held_out_or_in_the_own_data(pool: Pool) -> None:
    run = prepare(pool.job(replay_share=0.25, **LONG), pool.store)
    replayed, own = read_by(pool, run, 1), texts(pool, pool.data.path)
    held_out = texts(pool, pool.data.anchor.path)
    general = texts(pool, pool.parent.ancestry[0].path)
    like_held_out = {text for text in general if text.startswith(tuple(held_out))}
    in_own = general & own
    assert len(like_held_out) > 3 and len(in_own) > 3
    assert replayed == general - like_held_out - in_own
    assert run.streams.excluded == {"heldOutElsewhere": len(like_held_out), "inOwnData": len(in_own)}


def test_a_quarter_of_every_batch_is_replayed(pool: Pool) -> None:
    run = prepare(pool.job(replay_share=0.25, batch_tokens=1024, **LONG), pool.store)
    assert run.batches.rows == 16
    for step in range(5):
        assert int(run.batches.replayed(step).sum()) == 4
    report = pool.report(pool.train(pool.job(replay_share=0.25)))
    assert [(use["name"], use["share"]) for use in report["streams"]] == [("data", 0.75), ("replay", 0.25)]
    assert all(use["passes"] > 0 for use in report["streams"])


def test_no_more_of_the_bases_text_is_drawn_than_the_run_reads(pool: Pool) -> None:
    run = prepare(pool.job(replay_share=0.1, max_steps=2), pool.store)
    (_, replayed) = run.streams.training
    assert 0 < replayed.documents < 15


def test_another_attempt_replays_the_same_though_the_pool_holds_out_more(pool: Pool, text: Write) -> None:
    """Even where the tokens of the first attempt are lost."""
    job = pool.job(replay_share=0.25, **LONG)
    first = prepare(job, pool.store)
    expected = [first.batches.batch(step) for step in range(4)]
    registry = pool.store / store.held_out_registry("pool-uid")
    size = registry.stat().st_size
    make(pool.root, "late", {"late": [text(500 + n) + " Once more." for n in range(40)]})
    assert registry.stat().st_size > size
    (folder,) = (path for path in (pool.store / tokens_folder(job)).iterdir() if path.is_dir())
    (folder / "training-1.tokens").unlink()
    again = prepare(job, pool.store)
    assert all(torch.equal(again.batches.batch(step), ids) for step, ids in enumerate(expected))
    assert again.streams == first.streams


def test_replay_without_a_base_of_this_pool_is_refused(pool: Pool) -> None:
    pool.parent = pool.parent.model_copy(update={"ancestry": ()})
    with pytest.raises(JobError, match=r"InvalidConfig.*data.replay.share is 0.25.*no base that was trained"):
        prepare(pool.job(replay_share=0.25), pool.store)
    own = SnapshotRef(path=pool.data.path, digest=pool.data.digest)
    pool.parent = pool.parent.model_copy(update={"ancestry": (own,)})
    with pytest.raises(JobError, match=r"InvalidConfig.*data.replay.share"):
        prepare(pool.job(replay_share=0.25), pool.store)


def test_an_ancestors_snapshot_that_was_altered_is_not_replayed(pool: Pool) -> None:
    documents = pool.store / pool.parent.ancestry[0].path / "documents.jsonl"
    documents.write_bytes(documents.read_bytes().replace(b"alpha", b"omega", 1))
    with pytest.raises(JobError, match=r"ArtefactCorrupt.*documents.jsonl"):
        prepare(pool.job(replay_share=0.25), pool.store)


def test_sources_are_read_by_their_weights(pool: Pool, text: Write) -> None:
    large, small = [text(2000 + n) for n in range(80)], [text(3000 + n) for n in range(10)]
    pool.data = make(pool.root, "mixed", {"large": large, "small": small}, 1, 3)
    run = prepare(pool.job(batch_tokens=1024), pool.store)
    assert [(s.name, s.share) for s in run.streams.training] == [("source-0", 0.25), ("source-1", 0.75)]
    assert read_by(pool, run, 0) <= set(large) and read_by(pool, run, 1) <= set(small)
    assert run.batches.passes(100)[1] > 10 * run.batches.passes(100)[0]
