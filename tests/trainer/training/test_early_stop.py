"""Ending early: by rule, the same after any interruption, and with the best weights."""

import pytest
import torch

from moe_formats.failure import JobError, TransientError
from moe_formats.training_spec import EarlyStop
from moe_trainer import train
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.preset_model import Model
from moe_trainer.training import validation
from moe_trainer.training.early_stop import BestWeights, Standing, is_over, standing
from moe_trainer.training.run import Run

from .conftest import SMALL, Pool, everywhere_random

RULE = {"patience": 2, "min_delta": 0.0}


@pytest.mark.parametrize(
    ("bits", "min_delta", "expected"),
    [
        ([], 0.0, Standing(None, 0)),
        ([3.0], 0.0, Standing(10, 0)),
        ([3.0, 2.0, 2.5, 2.1], 0.0, Standing(20, 2)),
        ([3.0, 2.0, 2.0], 0.0, Standing(20, 1)),  # as good is no better
        ([3.0, 2.95, 2.9, 2.7], 0.2, Standing(40, 0)),  # small steps add up
        ([3.0, 2.95, 2.9], 0.2, Standing(10, 2)),
    ],
)
def test_the_best_is_what_the_rule_says(bits: list[float], min_delta: float, expected: Standing) -> None:
    validations = {10 * (number + 1): value for number, value in enumerate(bits)}
    rule = EarlyStop(patience=2, min_delta=min_delta)
    assert standing(validations, rule) == expected
    assert is_over(validations, rule) == (expected.since >= 2)


def test_kept_weights_are_a_copy_and_come_back_whole() -> None:
    model = everywhere_random(Model(SMALL))
    before = {name: weight.detach().clone() for name, weight in model.weights().items()}
    best = BestWeights(model)
    with torch.no_grad():
        for weight in model.weights().values():
            weight.add_(1)
    best.put_back()
    assert all(torch.equal(weight, before[name]) for name, weight in model.weights().items())


@pytest.fixture
def falling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation gets better up to step 6, and worse from then on."""
    real = validation.validate

    def validate(model: Model, *arguments: object) -> object:
        _, loads = real(model, *arguments)  # type: ignore[arg-type]
        return next(measured), loads

    measured = iter(())

    def prepared(*arguments: object) -> Run:
        nonlocal measured
        run = prepare(*arguments)  # type: ignore[arg-type]
        measured = (abs(step - 6) + 2.0 for step in range(1, 1000))
        return run

    prepare = train.prepare
    monkeypatch.setattr(validation, "validate", validate)
    monkeypatch.setattr(train, "prepare", prepared)


def weights_after(pool: Pool, steps: int) -> bytes:
    """Return the weights of a run of 12 steps after some of them."""
    run = train.prepare(pool.job(validation_every=1), pool.store)
    for _ in range(steps):
        run.curve.losses.append(train.take_step(run))
    folder = pool.root / f"after-{steps}"
    checkpoint_format.write(folder.parent, folder.name, run.model, run.tokenizer, "{}")
    return (folder / "model.safetensors").read_bytes()


def test_a_run_ends_after_its_patience_with_the_weights_of_the_best_step(pool: Pool, falling: None) -> None:
    made = pool.train(pool.job(validation_every=1, early_stop=RULE))
    report = pool.report(made)
    assert (made.steps, made.stopped_at) == (6, 8)
    assert made.validation_bits_per_byte == 2.0
    assert len(report["losses"]) == 8
    assert made.final_loss == pytest.approx(report["losses"][5])
    assert pool.weights(made) == weights_after(pool, 6)


def test_one_that_takes_all_its_steps_keeps_its_best_as_well(pool: Pool, falling: None) -> None:
    made = pool.train(pool.job(validation_every=1, early_stop={"patience": 100}))
    assert (made.steps, made.stopped_at) == (6, 12)
    assert pool.weights(made) == weights_after(pool, 6)


def test_without_the_rule_the_last_weights_are_kept(pool: Pool, falling: None) -> None:
    made = pool.train(pool.job(validation_every=1))
    assert (made.steps, made.stopped_at) == (12, None)


@pytest.mark.parametrize("broken_at", [1, 4])  # before the best step, and between it and the end
def test_an_interrupted_run_stops_where_it_would_have_and_with_the_same_bits(
    pool: Pool, broken_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = {"validation_every": 1, "checkpoint_every": 1}
    spec = every | {"max_steps": 40, "learning_rate": 0.3, "early_stop": {"patience": 3}}
    whole = pool.train(pool.job(run="whole", **spec))
    assert (whole.steps, whole.stopped_at) == (2, 5)
    taken = train.take_step

    def break_off(run: Run) -> float:
        if run.step == broken_at:
            raise TransientError("Interrupted", "stopped")
        return taken(run)

    with monkeypatch.context() as patched:
        patched.setattr(train, "take_step", break_off)
        with pytest.raises(TransientError):
            pool.train(pool.job(**spec))
    made = pool.train(pool.job(attempt=2, **spec))
    assert made.resumed_from == broken_at
    assert (made.steps, made.stopped_at) == (whole.steps, whole.stopped_at)
    assert pool.weights(made) == pool.weights(whole)


def test_without_text_to_validate_on_it_is_refused_before_a_step(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moe_trainer.training.run.validation_blocks", lambda *_: None)
    with pytest.raises(JobError, match=r"DataEmpty: training\.earlyStop needs text"):
        pool.train(pool.job(early_stop=RULE))
