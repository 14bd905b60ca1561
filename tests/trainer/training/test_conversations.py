"""Training on conversations: the loss, and its gradients, are of the answers alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from moe_formats.failure import JobError
from moe_formats.job_config import ArtefactRef, ExpertRef, HoldoutRule, SnapshotJob, Source
from moe_trainer import snapshot, train
from moe_trainer.environment import Environment
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.preset_model import Model
from moe_trainer.streaming.batches import IGNORED
from moe_trainer.text.tokenizer import ByteTokenizer
from moe_trainer.training.report import final_loss
from moe_trainer.training.run import Run, prepare
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


def test_steps_without_an_answer_have_no_loss_and_are_never_the_final_one(chats: Pool) -> None:
    job = chats.job(max_steps=24, batch_tokens=64, load_balancing_loss_weight=0, validation_every=1)
    batches = prepare(job, chats.store).batches
    learnt = [bool((batches.targets(step) != IGNORED).any()) for step in range(24)]
    steps = next(step for step in range(2, 24) if learnt[step - 2 : step] == [True, False])
    job = chats.job(max_steps=steps, batch_tokens=64, load_balancing_loss_weight=0, validation_every=1)
    made = chats.train(job)
    report = chats.report(made)
    assert [loss is not None for loss in report["losses"]] == learnt[:steps]
    assert made.final_loss == report["losses"][steps - 2] > 0
    assert report["unlearntSteps"] == learnt[:steps].count(False)


def test_a_run_that_was_interrupted_knows_which_steps_had_no_loss(
    chats: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = chats.report(chats.train(chats.job(batch_tokens=64)))["losses"]
    job = chats.job(batch_tokens=64, run="again")

    def interrupted(run: Run) -> float | None:
        if run.step == 10:
            raise RuntimeError("interrupted")
        return take_step(run)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="interrupted"):
        patched.setattr(train, "take_step", interrupted)
        chats.train(job)
    made = chats.train(job.model_copy(update={"attempt": 2}))
    assert made.resumed_from == 9 and None in whole[:9]
    assert chats.report(made)["losses"] == whole


def test_a_run_in_which_nothing_is_learnt_fails_and_says_so(chats: Pool) -> None:
    job = chats.job(max_steps=1, batch_tokens=64)
    jobs = (job.model_copy(update={"seed": seed}) for seed in range(50))
    job = next(job for job in jobs if (prepare(job, chats.store).batches.targets(0) == IGNORED).all())
    with pytest.raises(JobError, match=r"DataEmpty: none of the 1 steps read a token that is learnt"):
        chats.train(job)


@pytest.mark.parametrize(
    ("losses", "every", "expected"),
    [
        ([4.0, 2.0, 1.0], 2, 1.0),
        ([4.0, 2.0, 1.0, 3.0], 2, 2.0),
        ([4.0, 2.0, None, None], 2, 3.0),
        ([4.0, None, None, None, None], 2, 4.0),
        ([4.0, None, None, 2.0], 4, 3.0),
        ([None, 5.0], 100, 5.0),
    ],
)
def test_the_final_loss_is_the_mean_of_the_last_interval_that_has_one(
    losses: list[float | None], every: int, expected: float
) -> None:
    assert final_loss(losses, every) == expected
