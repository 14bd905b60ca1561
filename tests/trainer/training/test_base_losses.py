"""Losses that compare with the frozen base: their formulas, what they do to a step, and that runs resume exactly."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from moe_formats.failure import JobError, TransientError
from moe_formats.job_config import TrainJob
from moe_formats.training_spec import TrainingSpec
from moe_trainer import train
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.preset_model import Model
from moe_trainer.streaming.batches import IGNORED, MicroBatch
from moe_trainer.text.tokenizer import EOS, ByteTokenizer
from moe_trainer.training.base_losses import (
    MARGIN,
    SOFTNESS,
    BaseLosses,
    block_bits,
    divergence,
    specialization_loss,
)
from moe_trainer.training.run import Run, prepare, training_inputs
from moe_trainer.training.step import take_step

from .conftest import SMALL, Pool, everywhere_random


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_the_loss_is_the_mean_of_softplus_over_blocks() -> None:
    bits_B, base_bits_B = torch.tensor([2.0, 1.5, 3.0]), torch.tensor([2.0, 2.0, 2.5])
    wanted = sum(softplus((d + MARGIN) / SOFTNESS) for d in (0.0, -0.5, 0.5)) / 3
    assert specialization_loss(bits_B, base_bits_B).item() == pytest.approx(wanted)


def test_blocks_that_are_far_better_than_under_the_base_hardly_count_and_none_is_made_worse() -> None:
    bits_B = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    specialization_loss(bits_B, torch.full((3,), 2.0)).backward()
    assert bits_B.grad is not None
    better, equal, worse = bits_B.grad.tolist()
    assert 0 < better < 0.001 * worse
    assert 0.5 < equal / worse < 0.7  # sigmoid(MARGIN / SOFTNESS)
    assert worse == pytest.approx(1 / (3 * SOFTNESS), rel=0.01)


def test_bits_per_byte_of_a_block_are_those_of_its_learnt_tokens() -> None:
    logits_BTV = torch.randn(2, 4, 259, generator=torch.Generator().manual_seed(0))
    targets_BT = torch.tensor([[97, 98, EOS, 99], [IGNORED, IGNORED, 97, IGNORED]])
    sizes_B = torch.tensor([3, 1])
    nats = -logits_BTV.log_softmax(-1)
    first = nats[0, [0, 1, 2, 3], [97, 98, EOS, 99]].sum()
    wanted = [float(first) / math.log(2) / 3, float(nats[1, 2, 97]) / math.log(2)]
    assert block_bits(logits_BTV, targets_BT, sizes_B).tolist() == pytest.approx(wanted, rel=1e-5)


def test_bytes_are_counted_without_tokens_that_are_none_and_a_block_without_any_adds_no_gradient() -> None:
    model = everywhere_random(Model(SMALL))
    spec = TrainingSpec(specialization_loss_weight=1.0)
    losses = BaseLosses(everywhere_random(Model(SMALL)), ByteTokenizer(), spec)
    assert losses._bytes(torch.tensor([[97, EOS, 98], [IGNORED] * 3])).tolist() == [2, 1]
    ids_BT = torch.tensor([[1, 2, 3]])
    part = MicroBatch(ids_BT, torch.full((1, 3), IGNORED), torch.tensor([False]), None)
    value = losses.loss(part, model(ids_BT))
    value.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def gradients(run: Run) -> dict[str, torch.Tensor]:
    """Take a step and return what the optimizer saw of it: gradients before they were clipped away."""
    take_step(run)
    return {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}


def run_of(pool: Pool, **training: object) -> Run:
    return prepare(pool.job(gradient_clip=1e6, **training), pool.store)


def test_a_step_has_the_gradient_of_the_whole_loss_however_it_is_cut(pool: Pool) -> None:
    weights = {
        "specialization_loss_weight": 0.3,
        "load_balancing_loss_weight": 0.0,
        "auxiliary_loss_weight": 0.0,
    }
    run = run_of(pool, **weights)
    ids_BT, targets_BT = run.batches.batch(0)[:, :-1], run.batches.targets(0)
    model, _ = checkpoint_format.load(pool.store / "parent", pool.parent.digest)
    logits_BTV = model(ids_BT)
    nats_BT = F.cross_entropy(logits_BTV.transpose(1, 2), targets_BT, reduction="none")
    bits_B = nats_BT.sum(1) / math.log(2) / (targets_BT < 256).sum(1)
    extra = F.softplus((bits_B - bits_B.detach() + MARGIN) / SOFTNESS).mean()  # at the start it is its base
    (nats_BT.mean() + 0.3 * extra).backward()
    wanted = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for cut in (None, 64):
        found = gradients(run_of(pool, micro_batch_tokens=cut, **weights))
        assert found.keys() == wanted.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-5)


def test_the_base_stays_as_it_is_while_the_model_learns(pool: Pool) -> None:
    run = run_of(pool, specialization_loss_weight=0.3)
    assert run.base_losses is not None
    base = run.base_losses._base
    before = {name: weight.clone() for name, weight in base.weights().items()}
    for _ in range(3):
        run.curve.losses.append(take_step(run))
    assert all(torch.equal(weight, before[name]) for name, weight in base.weights().items())
    assert any(not torch.equal(weight, before[name]) for name, weight in run.model.weights().items())


def test_a_run_that_was_stopped_ends_with_the_same_bits(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pool.train(pool.job(run="whole", specialization_loss_weight=0.3))
    taken = train.take_step

    def stop_after_seven(run: Run) -> float:
        if run.step == 7:
            raise TransientError("Interrupted", "stopped")
        return taken(run)

    with monkeypatch.context() as patched:
        patched.setattr(train, "take_step", stop_after_seven)
        with pytest.raises(TransientError):
            pool.train(pool.job(specialization_loss_weight=0.3))
    made = pool.train(pool.job(attempt=2, specialization_loss_weight=0.3))
    assert made.resumed_from == 6
    assert pool.weights(made) == pool.weights(whole)
    assert pool.weights(made) != pool.weights(pool.train(pool.job(run="without")))


def test_the_base_of_a_later_revision_is_named_apart_from_its_parent(pool: Pool) -> None:
    other = everywhere_random(Model(SMALL))
    with torch.no_grad():
        other.norm.weight.mul_(0.5)
    digest = checkpoint_format.write(pool.store, "base", other, ByteTokenizer(), "{}")
    base = pool.parent.model_copy(update={"path": "base", "digest": digest})
    job = pool.job(specialization_loss_weight=0.3)
    against_base = job.model_copy(update={"base": base})
    assert training_inputs(against_base) != training_inputs(job)
    run = prepare(against_base, pool.store)
    assert run.base_losses is not None
    assert torch.equal(run.base_losses._base.weights()["norm.weight"], other.norm.weight)


def test_without_the_weight_no_base_is_loaded_and_a_checkpoint_outlives_the_field(pool: Pool) -> None:
    job = pool.job()
    assert prepare(job, pool.store).base_losses is None
    named: TrainJob = job.model_copy(update={"base": pool.parent})
    assert training_inputs(named) == training_inputs(job)


def test_the_divergence_is_that_of_two_distributions_and_none_of_equals() -> None:
    base_BTV = torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]]])
    logits_BTV = torch.tensor([[[math.log(3), 0.0]], [[5.0, 5.0]]])
    wanted = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert divergence(base_BTV, logits_BTV).tolist() == pytest.approx([wanted, 0.0], abs=1e-6)


def test_regularization_is_a_mean_over_replayed_blocks_alone() -> None:
    base, model = everywhere_random(Model(SMALL)), everywhere_random(Model(SMALL))
    with torch.no_grad():
        model.norm.weight.mul_(0.5)
    losses = BaseLosses(base, ByteTokenizer(), TrainingSpec(regularization=2.0, replay_share=0.25))
    ids_BT = torch.arange(32).view(4, 8)
    logits_BTV, replayed_B = model(ids_BT), torch.tensor([False, True, False, False])
    nats_B = divergence(base(ids_BT), logits_BTV)
    part = MicroBatch(ids_BT, ids_BT, replayed_B, None)
    found = losses.loss(part, logits_BTV)
    assert found.item() == pytest.approx(2 * nats_B[1].item(), rel=1e-5)
    nothing = replace(part, replayed_B=torch.zeros(4, dtype=torch.bool))
    assert losses.loss(nothing, logits_BTV).item() == 0


def test_regularization_without_replay_is_refused_with_the_remedy(pool: Pool) -> None:
    with pytest.raises(JobError, match=r"InvalidConfig: training\.regularization .*data\.replay\.share"):
        prepare(pool.job(regularization=0.1), pool.store)
