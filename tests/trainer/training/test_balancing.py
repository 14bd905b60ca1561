"""Keeping routers even: what the fields do, that a resume is exact, and what is told about the load."""

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from moe_formats.failure import JobError
from moe_formats.job_config import ArtefactRef, TrainJob
from moe_formats.training_spec import TrainingSpec
from moe_trainer import train
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.preset_model import Model
from moe_trainer.moe.balance import LayerLoad
from moe_trainer.moe.layer import MoELayer
from moe_trainer.text.tokenizer import ByteTokenizer
from moe_trainer.training.balancing import Balancer
from moe_trainer.training.load_record import MAX_INTERVALS, LayerRecord, LoadRecord, thinned
from moe_trainer.training.progress import MAX_EXPERT_SERIES, load_metrics
from moe_trainer.training.run import Run, prepare
from moe_trainer.training.step import take_step

from .conftest import SMALL, Pool, everywhere_random

SIGMOID = SMALL.model_copy(update={"model_type": "glm4_moe"})


def spec(weight: float = 0.01, z: float = 0.001, **balancing: Any) -> TrainingSpec:
    return TrainingSpec(
        load_balancing_loss_weight=weight, auxiliary_loss_weight=z, balancing={"bias_rate": 0.05, **balancing}
    )


@pytest.fixture
def sigmoid_pool(pool: Pool) -> Pool:
    """The pool with a parent whose routers have a bias."""
    model = everywhere_random(Model(SIGMOID)).eval()
    digest = checkpoint_format.write(pool.store, "sigmoid", model, ByteTokenizer(), "{}")
    return replace(pool, parent=ArtefactRef(revision="general-2", path="sigmoid", digest=digest))


def ids(rows: int = 4, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (rows, 33), generator=torch.Generator().manual_seed(seed))


def step_of(balancer: Balancer, model: Model, ids_BT: Tensor, rows: int | None = None) -> Tensor:
    """Return the balancing loss of a step in micro-batches of ``rows`` sequences, each by its share."""
    parts = torch.split(ids_BT, rows or len(ids_BT))
    losses = [balancer.loss(model.with_routing(part[:, :-1])[1]) * len(part) / len(ids_BT) for part in parts]
    return torch.stack(losses).sum()


def test_the_whole_step_as_one_micro_batch_is_the_global_batch(small_model: Model) -> None:
    first, second = (Balancer(small_model, spec(scope=scope)) for scope in ("GlobalBatch", "MicroBatch"))
    assert torch.equal(step_of(first, small_model, ids()), step_of(second, small_model, ids()))


def test_only_the_z_loss_is_left_where_the_balancing_weight_is_zero(small_model: Model) -> None:
    routings = small_model.with_routing(ids()[:, :-1])[1]
    expected = torch.stack([routing.logsumexp_N.square().mean() for routing in routings]).mean()
    found = Balancer(small_model, spec(weight=0, z=0.5)).loss(routings)
    torch.testing.assert_close(found, 0.5 * expected)


def test_counts_of_a_step_are_the_same_however_it_is_cut(small_model: Model) -> None:
    whole, cut = Balancer(small_model, spec()), Balancer(small_model, spec())
    step_of(whole, small_model, ids())
    step_of(cut, small_model, ids(), rows=1)
    assert [load.counts for load in cut.loads()] == [load.counts for load in whole.loads()]


def test_gradients_of_micro_batches_add_up_to_those_of_the_whole(pool: Pool) -> None:
    runs = [
        prepare(pool.job(micro_batch_tokens=tokens, load_balancing_loss_weight=0), pool.store)
        for tokens in (None, 64, 192)
    ]
    assert [run.rows for run in runs] == [4, 1, 3]
    for run in runs:
        take_step(run)
    whole, *others = ([p.grad for p in run.model.parameters()] for run in runs)
    for gradients in others:
        for gradient, expected in zip(gradients, whole, strict=True):
            assert gradient is not None and expected is not None
            torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)


class RecomputedBlock(nn.Module):
    """A block whose activations are computed again in the backward pass."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.forwards = 0

    def forward(self, *arguments: Any) -> Any:
        def counted(*inner: Any) -> Any:
            self.forwards += 1
            return self.block(*inner)

        return recomputed(counted, *arguments, use_reentrant=False)


def test_activations_that_are_computed_again_count_nothing_twice(small_model: Model) -> None:
    plain, again = Balancer(small_model, spec()), Balancer(small_model, spec())
    step_of(plain, small_model, ids()).backward()  # type: ignore[no-untyped-call]
    blocks = [RecomputedBlock(block) for block in small_model.layers]
    small_model.layers = nn.ModuleList(blocks)
    step_of(again, small_model, ids()).backward()  # type: ignore[no-untyped-call]
    assert [block.forwards for block in blocks] == [2, 2]
    assert again.loads() == plain.loads()


@pytest.mark.parametrize("rule", ["Sign", "Proportional"])
def test_a_bias_moves_against_the_load_after_the_step(sigmoid_pool: Pool, rule: str) -> None:
    run = prepare(sigmoid_pool.job(balancing={"bias": rule, "bias_rate": 0.01}), sigmoid_pool.store)
    before = biases(run.model)
    take_step(run)
    for bias, start, load in zip(biases(run.model), before, run.loads, strict=True):
        moved = (bias - bias.mean()) - (start - start.mean())
        busiest, idlest = load.counts.index(max(load.counts)), load.counts.index(min(load.counts))
        assert moved[busiest] < 0 < moved[idlest]
        assert moved[busiest] <= moved.min() + 1e-6 and moved[idlest] >= moved.max() - 1e-6
        assert bias.mean().abs() < 1e-6


def biases(model: Model) -> list[Tensor]:
    return [m.bias_E.clone() for m in model.modules() if isinstance(m, MoELayer) and m.bias_E is not None]


def test_a_bias_evens_out_what_it_finds(sigmoid_pool: Pool) -> None:
    def late_violation(**training: Any) -> float:
        run = prepare(
            sigmoid_pool.job(load_balancing_loss_weight=0, max_steps=60, **training), sigmoid_pool.store
        )
        found = []
        for _ in range(60):
            run.curve.losses.append(take_step(run))
            found.append(max(load.max_violation for load in run.loads))
        return sum(found[30:]) / 30

    without = late_violation()
    biased = late_violation(balancing={"bias": "Proportional", "bias_rate": 0.05})
    assert biased < 0.5 * without


def broken_off(pool: Pool, job: TrainJob, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Run a job until it is killed before a step."""
    real = train.take_step

    def killed(run: Run) -> float:
        if run.step == step:
            raise KeyboardInterrupt
        return real(run)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(train, "take_step", killed)
        pool.train(job)


BALANCED: dict[str, dict[str, Any]] = {
    "sign": {"balancing": {"bias": "Sign", "bias_rate": 0.01}},
    "proportional": {"balancing": {"bias": "Proportional", "bias_rate": 0.01}},
    "base": {"balancing": {"against": "Base"}, "load_balancing_loss_weight": 0.1},
    "sequences in micro-batches": {"balancing": {"scope": "Sequence"}, "micro_batch_tokens": 128},
    "global batch, with capacity": {"balancing": {"capacity_factor": 1.0}, "micro_batch_tokens": 128},
}


@pytest.mark.parametrize("name", BALANCED)
def test_a_run_that_was_killed_ends_as_if_unbroken(
    sigmoid_pool: Pool, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    training = BALANCED[name]
    whole = sigmoid_pool.train(sigmoid_pool.job(run="unbroken", **training))
    broken_off(sigmoid_pool, sigmoid_pool.job(**training), monkeypatch, step=8)
    with monkeypatch.context() as patched:
        patched.setattr(Balancer, "measure_base", None)  # a resumed run would measure other weights
        made = sigmoid_pool.train(sigmoid_pool.job(attempt=2, **training))
    assert made.resumed_from == 6
    assert sigmoid_pool.weights(made) == sigmoid_pool.weights(whole)
    reports = [sigmoid_pool.report(headline) for headline in (made, whole)]
    for key in ("losses", "validations", "loads", "finalShares", "baseShares"):
        assert reports[0].get(key) == reports[1].get(key), key


def test_the_bias_is_in_the_artefact(sigmoid_pool: Pool) -> None:
    made = sigmoid_pool.train(sigmoid_pool.job(balancing={"bias": "Sign", "bias_rate": 0.01}))
    model, _ = checkpoint_format.load(sigmoid_pool.store / made.path, made.digest)
    parent, _ = checkpoint_format.load(sigmoid_pool.store / "sigmoid", sigmoid_pool.parent.digest)
    trained, before = ([m.bias_E for m in each.modules() if hasattr(m, "bias_E")] for each in (model, parent))
    assert len(trained) == 2
    for bias, start in zip(trained, before, strict=True):
        assert not torch.equal(bias, start)  # type: ignore[arg-type]


def test_the_base_is_the_target_of_its_own_load(small_model: Model) -> None:
    """At the base's own load the loss is at its balance, 1; against an even load it is above."""
    with torch.no_grad():
        for layer in small_model.layers:
            layer.mlp.gate.weight.mul_(3)  # type: ignore[union-attr, operator]
    against_base = Balancer(small_model, spec(weight=1, z=0, against="Base"))
    against_base.measure_base(small_model, [ids(16, seed) for seed in range(4)])
    even = Balancer(small_model, spec(weight=1, z=0))
    own, uniform = (
        float(step_of(balancer, small_model, ids(16)).detach()) for balancer in (against_base, even)
    )
    assert abs(own - 1) < 0.5 * (uniform - 1)
    assert against_base.base_loads()[0].slots == 4 * 16 * 32 * SMALL.num_experts_per_tok


def test_the_base_is_measured_with_its_own_weights_on_batches_of_the_run(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Tensor] = []
    real = Balancer.measure_base

    def noted(self: Balancer, model: Model, batches: Any) -> None:
        measured.extend(batches)
        real(self, model, measured)

    monkeypatch.setattr(Balancer, "measure_base", noted)
    job = pool.job(balancing={"against": "Base"})
    made = pool.train(job)
    run = prepare(job, pool.store)
    assert len(measured) == 12  # the run has no more
    assert all(torch.equal(batch, run.batches.batch(step)) for step, batch in enumerate(measured))
    run.balancer.measure_base(run.model, measured)
    shares = [[round(share, 6) for share in load.shares] for load in run.balancer.base_loads()]
    assert pool.report(made)["baseShares"] == shares


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"balancing": {"bias": "Sign"}}, "balancing.bias is Sign, but the base's routers score by softmax"),
        (
            {"balancing": {"against": "Base"}, "load_balancing_loss_weight": 0},
            "acts only through the loss: set loadBalancingLossWeight above 0",
        ),
    ],
)
def test_balancing_that_cannot_act_is_refused_before_the_first_step(
    pool: Pool, training: dict[str, Any], message: str
) -> None:
    with pytest.raises(JobError, match=message) as failed:
        pool.train(pool.job(**training))
    assert (failed.value.reason, failed.value.exit_code) == ("InvalidConfig", 64)


def dense() -> Any:
    """A model, as far as balancing looks at it, that has no router."""
    return SimpleNamespace(mixtures=())


def test_balancing_a_model_without_routers_is_refused() -> None:
    with pytest.raises(JobError, match="the base is dense"):
        Balancer(dense(), spec())


def test_a_model_without_routers_trains_without_balancing() -> None:
    balancer = Balancer(dense(), spec(weight=0, z=0))
    assert float(balancer.loss([])) == 0
    balancer.finish_step()
    assert balancer.loads() == balancer.record.loads() == []
    assert balancer.record.summary(None) == ()


def test_logits_that_are_not_finite_end_the_run_with_layer_and_step_and_lose_nothing(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pool.train(pool.job(run="unbroken"))
    real = train.take_step

    def poisoned(run: Run) -> float:
        if run.step == 7:
            run.model.layers[1].mlp.gate.weight.data[0, 0] = torch.inf  # type: ignore[union-attr, index]
        return real(run)

    with monkeypatch.context() as patched:
        patched.setattr(train, "take_step", poisoned)
        with pytest.raises(
            JobError, match=r"at step 8 of 12 the router's logits in layer 1 are not"
        ) as failed:
            pool.train(pool.job())
    assert (failed.value.reason, failed.value.retryable) == ("LossNotFinite", False)
    made = pool.train(pool.job(attempt=2))
    assert made.resumed_from == 6
    assert pool.weights(made) == pool.weights(whole)


def test_the_report_tells_the_load_of_every_interval(pool: Pool) -> None:
    made = pool.train(pool.job())
    report = pool.report(made)
    assert set(report["loads"]) == {"4", "8", "12"}
    for records in report["loads"].values():
        assert len(records) == SMALL.num_hidden_layers
        for record in records:
            assert record["batchMaxViolation"] >= record["maxViolation"] >= 0
            assert record["validationMaxViolation"] >= 0
            assert 0 < record["entropy"] <= 1 and record["logitRms"] > 0
            assert record["deadExperts"] == 0 and record["dropRate"] == 0
    assert [sum(shares) for shares in report["finalShares"]] == pytest.approx([1, 1], abs=1e-5)
    worst = max(record["maxViolation"] for record in report["loads"]["12"])
    assert made.load_max_violation == pytest.approx(worst)
    assert report["provenance"]["backend"] in ("native", "torch")
    assert report["provenance"]["kernels"].endswith(f"torch {report['provenance']['torch']}")
    assert len(made.to_json()) < 3072


def test_slots_beyond_the_capacity_are_reported_as_dropped(pool: Pool) -> None:
    report = pool.report(pool.train(pool.job(balancing={"capacity_factor": 0.5})))
    assert all(0.5 <= record["dropRate"] < 1 for record in report["loads"]["12"])


def test_the_backend_is_named_in_the_log(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    pool.train(pool.job(max_steps=1))
    assert re.search(
        r"in-layer experts computed by (native|torch) \((C beside )?torch [\d.]+", capsys.readouterr().out
    )


def test_metrics_have_a_series_for_each_layer_and_each_in_layer_expert() -> None:
    text = load_metrics([LayerLoad((6, 2, 0, 0), 1, 0.5), LayerLoad((2, 2, 2, 2), 0, 0.25)])
    assert 'moe_trainer_router_load{layer="0",expert="1"} 0.25\n' in text
    assert 'moe_trainer_router_max_violation{layer="0"} 2\n' in text
    assert 'moe_trainer_router_dead_experts{layer="0"} 2\n' in text
    assert 'moe_trainer_router_drop_rate{layer="0"} 0.125\n' in text
    assert 'moe_trainer_router_entropy{layer="1"} 1\n' in text
    assert 'moe_trainer_router_logit_rms{layer="1"} 0.25\n' in text
    assert text.count("# TYPE") == 6
    assert load_metrics([]) == ""


def test_a_large_model_shows_its_layers_and_not_every_in_layer_expert() -> None:
    loads = [LayerLoad((1,) * 256)] * (MAX_EXPERT_SERIES // 256 + 1)
    assert "router_load{" not in load_metrics(loads)
    assert load_metrics(loads).count("router_entropy{") == len(loads)


def test_a_record_adds_up_steps_exactly_and_starts_anew() -> None:
    record = LoadRecord(layers=1, experts=2)
    record.add([LayerLoad((3, 1), 1, 1.0)])
    record.add([LayerLoad((1, 3), 0, 7.0)])
    (found,) = record.summary([LayerLoad((4, 0))])
    assert found == LayerRecord(
        batch_max_violation=0.5,
        max_violation=0.0,
        validation_max_violation=1.0,
        entropy=1.0,
        dead_experts=0,
        drop_rate=0.125,
        logit_rms=5.0,
    )
    record.clear()
    record.add([LayerLoad((4, 0), 0, 2.0)])
    assert record.summary(None)[0].batch_max_violation == 1.0
    assert record.loads()[0].counts == (4, 0)


@pytest.mark.parametrize("count", [1, MAX_INTERVALS, MAX_INTERVALS + 1, 1000])
def test_a_long_run_keeps_a_bounded_number_of_intervals_and_the_newest(count: int) -> None:
    kept: dict[int, tuple[LayerRecord, ...]] = {}
    for step in range(1, count + 1):
        kept = thinned(kept | {step: ()})
    assert len(kept) <= MAX_INTERVALS
    assert len(kept) >= min(count, MAX_INTERVALS // 2)
    assert max(kept) == count
    assert list(kept) == sorted(kept)
