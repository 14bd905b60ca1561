"""Training on conversations: the loss, and its gradients, are of the answers alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from moe_formats.job_config import ArtefactRef, ExpertRef, HoldoutRule, SnapshotJob, Source
from moe_trainer import snapshot
from moe_trainer.environment import Environment
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.preset_model import Model
from moe_trainer.streaming.batches import IGNORED
from moe_trainer.text.tokenizer import ByteTokenizer
from moe_trainer.training.run import prepare
from moe_trainer.training.step import take_step

from .conftest import Pool


@pytest.fixture
def chats(tmp_path: Path, small_model: Model, text: Callable[[int], str]) -> Pool:
    """A pool whose Expert learns from conversations."""
    folder = tmp_path / "sources" / "chats"
    folder.mkdir(parents=True)
    lines = (
        {
            "messages": [
                {"role": "user", "content": text(n)[:200]},
                {"role": "assistant", "content": f"Answer {n}."},
            ]
        }
        for n in range(60)
    )
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = SnapshotJob(
        pool_uid="pool-uid",
        expert=ExpertRef(name="prose", uid="prose-uid"),
        sources=(Source(root="chats", path="*.jsonl", format="messages"),),
        holdout=HoldoutRule(fraction=0.1, salt="salt"),
    )
    root = tmp_path / "store"
    root.mkdir()
    data = snapshot.run(job, Environment(store=root, sources=tmp_path / "sources"))
    digest = checkpoint_format.write(root, "parent", small_model, ByteTokenizer(), "{}")
    return Pool(tmp_path, data, ArtefactRef(revision="general-1", path="parent", digest=digest))


@pytest.mark.parametrize("micro_batch_tokens", [None, 64])
def test_a_step_takes_the_mean_over_the_answers_tokens(chats: Pool, micro_batch_tokens: int | None) -> None:
    job = chats.job(
        micro_batch_tokens=micro_batch_tokens,
        load_balancing_loss_weight=0,
        auxiliary_loss_weight=0,
        gradient_clip=1e6,
    )
    run, other = prepare(job, chats.store), prepare(job, chats.store)
    logits = other.model(other.batches.batch(0)[:, :-1]).flatten(0, 1)
    targets = other.batches.targets(0).flatten()
    answers = targets != IGNORED
    assert 0 < int(answers.sum()) < len(targets) // 2
    expected = F.cross_entropy(logits[answers], targets[answers])
    expected.backward()
    assert take_step(run) == pytest.approx(float(expected.detach()), rel=1e-5)
    for got, wanted in zip(run.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-4, atol=1e-6)


def test_the_answers_are_learnt_and_the_questions_are_not(chats: Pool) -> None:
    run = prepare(chats.job(max_steps=40, load_balancing_loss_weight=0), chats.store)

    def nats(learnt: bool) -> float:
        ids, targets = run.batches.batch(0), run.batches.targets(0)
        with torch.no_grad():
            logits = run.model(ids[:, :-1]).flatten(0, 1)
        chosen = (targets != IGNORED).flatten() == learnt
        return float(F.cross_entropy(logits[chosen], ids[:, 1:].flatten()[chosen]))

    answers, questions = nats(True), nats(False)
    for _ in range(40):
        run.curve.losses.append(take_step(run))
    assert answers - nats(True) > 1.0
    assert questions - nats(False) < 0.5 * (answers - nats(True))
