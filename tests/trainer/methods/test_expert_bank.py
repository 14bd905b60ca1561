"""ExpertBank: what it trains, that taking it off leaves the base, and that transformers loads base and bank."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from tests.trainer.training.conftest import SMALL, Pool, everywhere_random
from torch import Tensor

from moe_formats.failure import JobError
from moe_formats.training_spec import BankSpec, TrainingSpec
from moe_trainer.methods import artefacts, checkpoint_format
from moe_trainer.methods.expert_bank import ExpertBank
from moe_trainer.models.bank_layers import BankedExperts, BankRows
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.models.preset_model import Model, layer_config
from moe_trainer.moe.layer import MoELayer
from moe_trainer.parallel.filling import rows_of_all
from moe_trainer.text.tokenizer import ByteTokenizer
from moe_trainer.training.optimization import trained_parameters

M = TypeVar("M", bound=CausalModel)

IDS_BT = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(1))


def spec(experts: int = 3, **training: object) -> TrainingSpec:
    return TrainingSpec.model_validate({"method": "ExpertBank", "bank": BankSpec(experts=experts)} | training)


def banked(model: M, experts: int = 3) -> M:
    """The model with a bank that answers differently from the base, and takes part in every layer."""
    method = ExpertBank()
    method.attach(model, spec(experts), seed=1)
    method.begin(model, [IDS_BT], rows_of_all(model))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter += torch.empty_like(parameter).normal_(0, 0.2, generator=generator)
    return model


def test_a_bank_that_has_not_begun_changes_no_logit(small_model: Model) -> None:
    with torch.no_grad():
        before = small_model(IDS_BT)
        ExpertBank().attach(small_model, spec(), seed=1)
        assert torch.equal(small_model(IDS_BT), before)


def test_a_bank_of_copies_of_all_in_layer_experts_begins_as_the_base(small_model: Model) -> None:
    before = small_model(IDS_BT)
    method = ExpertBank()
    method.attach(small_model, spec(4), seed=1)
    method.begin(small_model, [IDS_BT], rows_of_all(small_model))
    _, routings = small_model.with_routing(IDS_BT)
    by_bank = sum(routing.counts_GE[:, 4:].sum() for routing in routings)
    assert by_bank > 0.4 * sum(routing.counts_GE.sum() for routing in routings)
    # A token whose logits fall on both sides of the shift uses an original with a copy's weight.
    assert (small_model(IDS_BT) - before).square().mean() < 0.05 * before.var()


def test_only_the_bank_gets_gradients(small_model: Model) -> None:
    model = banked(small_model)
    model(IDS_BT).logsumexp(-1).sum().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == set(trained_parameters(model))
    assert with_gradient == {
        f"layers.{layer}.mlp.{name}"
        for layer in range(2)
        for name in ("beside.rows_kD", "experts.bank.gate_up_E2FD", "experts.bank.down_EDF")
    }


def test_the_gradients_are_those_of_finite_differences() -> None:
    layer = MoELayer(replace(layer_config(SMALL), hidden=6, inner=4))
    experts = BankedExperts(layer.experts, 2)
    layer.beside, layer.router = BankRows(layer.rows_ED, 2), replace(layer.router, experts=6)
    layer.set_submodule("experts", experts)
    layer.double()
    rows, bank, layer.beside.open = layer.beside.rows_kD, experts.bank, True
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    x_ND = torch.empty(5, 6, dtype=torch.float64).normal_(generator=generator).requires_grad_()

    def run(x_ND: Tensor, *parameters: Tensor) -> Tensor:
        names = ["beside.rows_kD", "experts.bank.gate_up_E2FD", "experts.bank.down_EDF"]
        y_ND, _ = torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x_ND,))
        assert isinstance(y_ND, Tensor)
        return y_ND

    assert torch.autograd.gradcheck(run, (x_ND, rows, bank.gate_up_E2FD, bank.down_EDF))


def test_stacked_onto_the_base_a_bank_answers_as_it_was_trained(small_model: Model, tmp_path: Path) -> None:
    model = banked(small_model)
    expected = model(IDS_BT)
    ExpertBank().write(tmp_path, model, ByteTokenizer(), spec())
    stacked = everywhere_random(Model(SMALL)).eval()
    assert not torch.allclose(stacked(IDS_BT), expected, atol=0.05)
    ExpertBank().load(tmp_path, stacked)
    assert stacked.config.num_experts == 7
    torch.testing.assert_close(stacked(IDS_BT), expected, atol=1e-4, rtol=1e-4)


def test_training_a_bank_leaves_the_base_bit_for_bit(pool: Pool) -> None:
    base, _ = checkpoint_format.load(pool.store / "parent", pool.parent.digest)
    made = pool.train(pool.job(max_steps=60, method="ExpertBank", bank=BankSpec(experts=2)))
    assert made.final_loss < 0.7 * pool.report(made)["losses"][0]
    assert made.parameters == 2 * 2 * (32 + 3 * 32 * 32)
    files = {path.name for path in (pool.store / made.path).iterdir()}
    assert files == {"adapter.json", "bank_config.json", "bank.safetensors", "manifest.json", "report.json"}
    again, _ = checkpoint_format.load(pool.store / "parent", pool.parent.digest)
    assert torch.equal(again(IDS_BT), base(IDS_BT))
    trained, _ = artefacts.load(pool.store, made.path, made.digest)
    assert isinstance(trained, Model)
    for name, weight in base.weights().items():
        found = trained.weights()[name]
        assert torch.equal(found[: len(weight)], weight), name
    assert not torch.allclose(trained(IDS_BT), base(IDS_BT), atol=0.01)


def test_a_bank_goes_on_from_a_bank(pool: Pool) -> None:
    first = pool.train(pool.job(max_steps=30, method="ExpertBank", bank=BankSpec(experts=2)))
    parent = pool.parent.model_copy(update={"path": first.path, "digest": first.digest})
    job = pool.job(run="second", max_steps=30, method="ExpertBank", bank=BankSpec(experts=2))
    second = pool.train(job.model_copy(update={"parent": parent}))
    losses = pool.report(second)["losses"]
    assert losses[0] < 0.8 * pool.report(first)["losses"][0]


def test_base_and_bank_are_a_checkpoint_of_transformers(small_model: Model, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = banked(small_model)
    expected = model(IDS_BT)
    ExpertBank().write(tmp_path, model, ByteTokenizer(), spec())
    stacked = everywhere_random(Model(SMALL)).eval()
    ExpertBank().load(tmp_path, stacked)
    checkpoint_format.write(tmp_path, "composed", stacked, ByteTokenizer(), "{}")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "composed")
    assert loaded.config.num_experts == 7
    with torch.inference_mode():
        torch.testing.assert_close(loaded(IDS_BT).logits, expected, atol=1e-4, rtol=1e-4)


def test_what_a_bank_cannot_do_is_refused(small_model: Model) -> None:
    with pytest.raises(JobError, match=r"training\.bank\.experts is 5.*have 4: set it to 1 to 4"):
        ExpertBank().attach(small_model, spec(5), seed=1)
    with pytest.raises(JobError, match=r"against and bias change the load .*: leave both out"):
        ExpertBank().attach(small_model, spec(balancing={"against": "Base"}), seed=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 3}, "it is a bank for 3 mixture layers, but the base has 2"),
        ({"experts": 0}, r"bank_config\.json: experts: Input should be greater than 0"),
        ({"experts": 2}, r"shape \[3, 32\], not \[2, 32\] of its bank_config\.json"),
        ("gate.weight", r"bank_config\.json beside this base asks for model\.layers\.0\.mlp\.gate\.weight"),
    ],
)
def test_a_bank_that_does_not_fit_is_refused_before_the_base_is_changed(
    change: dict[str, int] | str, message: str, small_model: Model, tmp_path: Path
) -> None:
    names = small_model.weights().keys()
    ExpertBank().write(tmp_path, banked(everywhere_random(Model(SMALL))), ByteTokenizer(), spec())
    config, weights = tmp_path / "bank_config.json", tmp_path / "bank.safetensors"
    if isinstance(change, str):
        weights.write_bytes(weights.read_bytes().replace(change.encode(), change.upper().encode()))
    else:
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(JobError, match=f"ArtefactCorrupt.*{message}"):
        ExpertBank().load(tmp_path, small_model)
    assert small_model.weights().keys() == names and small_model.in_layer_experts == 4
