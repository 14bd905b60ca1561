"""LoRA: what it trains, what it leaves alone, and that PEFT reads what it writes."""

from pathlib import Path

import pytest
import torch
from tests.trainer.training.conftest import SMALL, Pool, everywhere_random

from moe_trainer.job_config import LoRASpec, TrainingSpec
from moe_trainer.methods import artefacts
from moe_trainer.methods.lora import LoRA
from moe_trainer.methods.peft_format import updates
from moe_trainer.model import Model
from moe_trainer.optimization import trained_parameters
from moe_trainer.tokenizer import Tokenizer

LORA = {"method": "LoRA", "lora": LoRASpec(rank=3, alpha=6)}
IDS_BT = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(1))


def spec(**lora: object) -> TrainingSpec:
    return TrainingSpec(method="LoRA", lora=LoRASpec.model_validate({"rank": 3, "alpha": 6} | lora))


def attached(model: Model, **lora: object) -> Model:
    """The model with updates that are not zero."""
    LoRA().attach(model, spec(**lora), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for update in updates(model).values():
            update.up_OR.normal_(0, 0.1, generator=generator)
    return model


def test_a_new_adapter_changes_no_logit(small_model: Model) -> None:
    before = small_model(IDS_BT)
    LoRA().attach(small_model, spec(), seed=1)
    assert torch.equal(small_model(IDS_BT), before)


def test_only_updates_are_trained(small_model: Model) -> None:
    LoRA().attach(small_model, spec(), seed=1)
    trained = trained_parameters(small_model)
    assert all(".lora." in name or "_lora." in name for name in trained)
    (small_model(IDS_BT).logsumexp(-1)).sum().backward()
    with_gradient = {name for name, p in small_model.named_parameters() if p.grad is not None}
    assert with_gradient == set(trained)


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_merging_gives_an_ordinary_model_with_the_same_logits(
    small_model: Model, tmp_path: Path, rank_stabilised: bool
) -> None:
    model = attached(small_model, rank_stabilised=rank_stabilised)
    expected = model(IDS_BT)
    LoRA().write(tmp_path, model, Tokenizer(), spec(rank_stabilised=rank_stabilised))
    merged = everywhere_random(Model(SMALL)).eval()
    assert not torch.allclose(merged(IDS_BT), expected, atol=0.05)
    LoRA().load(tmp_path, merged)
    assert [type(m) for m in merged.modules()] == [type(m) for m in Model(SMALL).modules()]
    assert all(parameter.requires_grad for parameter in merged.parameters())
    torch.testing.assert_close(merged(IDS_BT), expected, atol=1e-4, rtol=1e-4)


def test_training_lora_beside_the_base(pool: Pool) -> None:
    made = pool.train(pool.job(max_steps=60, **LORA))
    assert made.final_loss < 0.7 * pool.report(made)["losses"][0]


def test_peft_loads_the_adapter_on_the_base_in_transformers_with_the_same_logits(pool: Pool) -> None:
    import peft
    import transformers

    made = pool.train(pool.job(**LORA))
    base = transformers.AutoModelForCausalLM.from_pretrained(pool.store / pool.parent.path)
    theirs = peft.PeftModel.from_pretrained(base, pool.store / made.path).eval()
    ours = artefacts.load(pool.store, made.path, made.digest)[0]
    with torch.no_grad():
        with theirs.disable_adapter():
            assert not torch.allclose(theirs(IDS_BT).logits, ours(IDS_BT), atol=0.05)
        torch.testing.assert_close(theirs(IDS_BT).logits, ours(IDS_BT), atol=1e-4, rtol=1e-4)
