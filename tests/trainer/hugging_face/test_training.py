"""A base of transformers through the whole trainer: train, evaluate, serve."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from moe_formats import store as store_paths
from moe_formats.failure import JobError
from moe_formats.format import digest_of
from moe_formats.job_config import (
    ArtefactRef,
    Comparison,
    EvaluateJob,
    ExpertRef,
    HoldoutRef,
    HoldoutRule,
    ImportedBase,
    SnapshotJob,
    SnapshotRef,
    Source,
    TrainJob,
)
from moe_formats.job_report import SnapshotHeadline, TrainHeadline
from moe_formats.training_spec import TrainingSpec
from moe_trainer import evaluate, snapshot, train
from moe_trainer.environment import Environment
from moe_trainer.hugging_face.importing import digest_of_folder
from moe_trainer.methods import checkpoint_format

from .conftest import write_checkpoint

EXPERT = ExpertRef(name="prose", uid="prose-uid", domain="prose")
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]


def text(number: int) -> str:
    """Return sentences of one pattern, no two alike; longer than a segment with its context."""
    picks = [WORDS[(number * 31 + place * place * 7 + place) % 8] + str(number) for place in range(70)]
    return "The order is " + ", then ".join(picks) + ".\n"


@pytest.fixture
def data(tmp_path: Path) -> SnapshotHeadline:
    folder = tmp_path / "sources" / "corpora"
    folder.mkdir(parents=True)
    for number in range(200):
        (folder / f"{number}.txt").write_text(text(number))
    job = SnapshotJob(
        pool_uid="pool-uid",
        expert=EXPERT,
        sources=(Source(root="corpora", path="*.txt", format="text"),),
        holdout=HoldoutRule(fraction=0.2, salt="salt"),
    )
    (tmp_path / "store").mkdir()
    return snapshot.run(job, Environment(store=tmp_path / "store", sources=tmp_path / "sources"))


def base(store: Path, name: str) -> ArtefactRef:
    """Commit a checkpoint in the store, with more context than the text has tokens."""
    from moe_trainer.hugging_face import directory

    source = with_context(write_checkpoint(store.parent / name, name, dtype=torch.bfloat16), 512)
    decoder, tokenizer = directory.load(source)
    return ArtefactRef(
        revision="base", path=name, digest=checkpoint_format.write(store, name, decoder, tokenizer, "{}")
    )


def with_context(folder: Path, tokens: int) -> Path:
    """Let a checkpoint say that it sees so many tokens; rotary positions go on for ever."""
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": tokens}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def job(data: SnapshotHeadline, parent: ArtefactRef, **training: Any) -> TrainJob:
    spec = {
        "learning_rate": 0.02,
        "max_steps": 16,
        "batch_tokens": 512,
        "checkpoint_every": 5,
        "load_balancing_loss_weight": 0.2,
    } | training
    return TrainJob(
        pool_uid="pool-uid",
        expert=EXPERT,
        revision="prose-1",
        attempt=1,
        inputs_digest=digest_of(repr((parent, training))),
        parent=parent,
        data=SnapshotRef(path=data.path, digest=data.digest),
        training=TrainingSpec(**spec),
        seed=7,
    )


def report(store: Path, made: TrainHeadline) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((store / made.path / "report.json").read_text())
    return found


DENSE = {"load_balancing_loss_weight": 0.0, "auxiliary_loss_weight": 0.0}


@pytest.mark.parametrize(("name", "training"), [("llama", DENSE), ("qwen3-moe", {})])
def test_a_base_is_trained_evaluated_and_loaded_by_transformers(
    name: str, training: dict[str, Any], data: SnapshotHeadline, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    parent = base(store, name)
    made = train.run(job(data, parent, **training), Environment(store=store))
    losses = report(store, made)["losses"]
    assert sum(losses[-4:]) / 4 < 0.8 * losses[0]
    assert made.validation_bits_per_byte is not None
    assert (made.load_max_violation is None) == (name == "llama")

    ours, tokenizer = checkpoint_format.load(store / made.path, made.digest)
    theirs = AutoModelForCausalLM.from_pretrained(store / made.path, dtype=torch.float32)
    ids = torch.tensor([tokenizer.encode(text(1000))[:512]])
    torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)

    own = HoldoutRef(domain="prose", expert="prose", path=data.anchor.path, digest=data.anchor.digest)
    found = evaluate.run(
        EvaluateJob(
            pool_uid="pool-uid",
            expert=EXPERT,
            revision="prose-1",
            candidate=ArtefactRef(
                revision="prose-1",
                path=made.path,
                digest=made.digest,
                ancestry=(SnapshotRef(path=data.path, digest=data.digest),),
            ),
            base=parent,
            comparisons=(Comparison(holdout=own, role="anchor"),),
            suite=(own,),
        ),
        Environment(store=store),
    )
    assert found.gain is not None and found.gain.lower > 0.1


def broken_and_resumed(job: TrainJob, store: Path) -> TrainHeadline:
    """Run a job under another name, break it off at its eighth step, and run it again."""
    asked = job.model_copy(update={"inputs_digest": digest_of("broken")})
    real, calls = train.take_step, 0

    def broken(run: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return real(run)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "take_step", broken)
        train.run(asked, Environment(store=store))
    return train.run(asked, Environment(store=store))


def test_a_killed_run_goes_on_with_the_same_bits(data: SnapshotHeadline, tmp_path: Path) -> None:
    store = tmp_path / "store"
    parent = base(store, "mixtral")
    whole = train.run(job(data, parent), Environment(store=store))
    again = broken_and_resumed(job(data, parent), store)
    assert again.resumed_from == 5
    weights = "model.safetensors"
    assert (store / again.path / weights).read_bytes() == (store / whole.path / weights).read_bytes()


def test_balancing_a_dense_base_is_refused(data: SnapshotHeadline, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(JobError, match=r"InvalidConfig.*the base is dense.*loadBalancingLossWeight"):
        train.run(job(data, base(store, "llama")), Environment(store=store))


def test_a_checkpoint_of_a_data_store_is_imported_by_the_snapshot_and_trained_from(tmp_path: Path) -> None:
    sources, root = tmp_path / "sources", tmp_path / "store"
    with_context(write_checkpoint(sources / "hub" / "models" / "small", "qwen3"), 512)
    (sources / "corpora").mkdir()
    for number in range(60):
        (sources / "corpora" / f"{number}.txt").write_text(text(number))
    root.mkdir()
    digest = digest_of_folder(sources / "hub" / "models" / "small")
    made = snapshot.run(
        SnapshotJob(
            pool_uid="pool-uid",
            expert=EXPERT,
            sources=(Source(root="corpora", path="*.txt", format="text"),),
            holdout=HoldoutRule(fraction=0.2, salt="salt", min_clusters=5),
            base=ImportedBase(root="hub", path="models/small", digest=digest),
        ),
        Environment(store=root, sources=sources),
    )
    parent = ArtefactRef(revision="imported", path=store_paths.imported("pool-uid", digest), digest=digest)
    asked = job(made, parent, **DENSE, max_steps=3, across_documents=False, recompute=True)
    trained = train.run(asked, Environment(store=root))
    assert trained.tokens == 3 * 512
    assert (root / trained.path / "config.json").read_bytes() == (
        root / parent.path / "config.json"
    ).read_bytes()
