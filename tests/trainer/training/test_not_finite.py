"""A run that explodes says where."""

import math

import pytest
import torch
from torch import Tensor

from moe_formats.failure import JobError
from moe_trainer import train
from moe_trainer.models.preset_model import Block, Model
from moe_trainer.parallel.processes import Processes
from moe_trainer.parallel.spread import clip_gradients
from moe_trainer.training.not_finite import origin
from moe_trainer.training.run import Run, prepare
from moe_trainer.training.step import take_step

from .conftest import Pool

IDS_BT = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(1))


def test_a_finite_model_is_innocent(small_model: Model) -> None:
    assert origin(small_model, [IDS_BT]) == "what this process holds is finite"


def test_a_weight_is_named_before_what_it_spoils(small_model: Model) -> None:
    with torch.no_grad():
        small_model.get_parameter("layers.1.mlp.experts.down_EDF")[0, 0, 0] = math.nan
    assert origin(small_model, [IDS_BT]) == "the weight layers.1.mlp.experts.down_EDF is not finite"


def test_the_first_layer_whose_output_overflows_is_named(small_model: Model) -> None:
    with torch.no_grad():
        small_model.get_parameter("layers.1.mlp.experts.down_EDF").fill_(3e38)
    assert origin(small_model, [IDS_BT]) == "the output of layer 1 is not finite"


def test_a_gradient_that_overflows_is_named_where_it_began(small_model: Model) -> None:
    block = small_model.layers[0]
    assert isinstance(block, Block)
    block.register_full_backward_hook(lambda module, grads, out: tuple(_spoilt(grad) for grad in grads))
    small_model(IDS_BT).sum().backward()
    norm = clip_gradients(small_model, 1.0, Processes())
    assert not math.isfinite(norm)
    assert origin(small_model, [IDS_BT]) == "the gradient of embed_tokens.weight is not finite"


def _spoilt(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient * math.inf


def test_a_step_that_explodes_names_step_and_layer_and_touches_no_weight(pool: Pool) -> None:
    run = prepare(pool.job(), pool.store)
    take_step(run)
    weight = run.model.get_parameter("layers.1.mlp.experts.down_EDF")
    with torch.no_grad():
        weight.fill_(3e38)
    before = {name: parameter.clone() for name, parameter in run.model.named_parameters()}
    with pytest.raises(
        JobError, match=r"at step 1 of 12 .* the output of layer 1 is not finite.* Lower training"
    ):
        take_step(run)
    assert all(torch.equal(parameter, before[name]) for name, parameter in run.model.named_parameters())


@pytest.mark.parametrize(
    ("weight", "found"),
    [
        ("layers.1.mlp.gate.weight", "the router's logits in layer 1 are not finite"),
        ("layers.1.mlp.experts.down_EDF", "nan bits per byte: the output of layer 1 is not finite"),
    ],
)
def test_what_explodes_in_the_last_step_is_found_before_it_is_committed(
    weight: str, found: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = train.take_step

    def spoil(run: Run) -> float:
        loss = real(run)
        with torch.no_grad():
            run.model.get_parameter(weight).fill_(3e38)
        return loss

    monkeypatch.setattr(train, "take_step", spoil)
    with pytest.raises(JobError, match=f"LossNotFinite: after step 1 of 1 .*{found}.* Lower") as failed:
        pool.train(pool.job(max_steps=1))
    assert not failed.value.retryable


def test_a_weight_that_the_last_step_spoilt_is_named_also_without_text_to_validate_on(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = train.take_step

    def spoil(run: Run) -> float:
        loss, run.validation = real(run), None
        with torch.no_grad():
            run.model.get_parameter("norm.weight").fill_(math.inf)
        return loss

    monkeypatch.setattr(train, "take_step", spoil)
    with pytest.raises(JobError, match=r"after step 1 of 1 the weight norm\.weight is not finite"):
        pool.train(pool.job(max_steps=1))
