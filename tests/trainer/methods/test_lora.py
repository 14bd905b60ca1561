"""LoRA: what it trains, what it leaves alone, and that PEFT reads what it writes."""

import copy
import json
import weakref
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import pytest
import torch
from tests.trainer.training.conftest import SMALL, Pool, everywhere_random
from torch.nn import functional as F

from moe_formats.failure import JobError
from moe_formats.training_spec import Balancing, LoRASpec, TrainingSpec
from moe_trainer.methods import checkpoint_format
from moe_trainer.methods.lora import LoRA
from moe_trainer.methods.peft_format import updates
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.models.lora_layers import LoRAExperts
from moe_trainer.models.preset_model import Model
from moe_trainer.moe.experts import ExpertsFunction, swiglu_experts
from moe_trainer.moe.layer import InLayerExperts
from moe_trainer.text.tokenizer import ByteTokenizer
from moe_trainer.training.optimization import trained_parameters

Decoding = TypeVar("Decoding", bound=CausalModel)
LORA = {"method": "LoRA", "lora": LoRASpec(rank=3, alpha=6)}
IDS_BT = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(1))


def spec(**lora: object) -> TrainingSpec:
    return TrainingSpec(method="LoRA", lora=LoRASpec.model_validate({"rank": 3, "alpha": 6} | lora))


def attached(model: Decoding, **lora: object) -> Decoding:
    """The model with updates that are not zero."""
    LoRA().attach(model, spec(**lora), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for update in updates(model).values():
            update.b_OR.normal_(0, 0.1, generator=generator)
    return model


def test_a_new_adapter_changes_no_logit(small_model: Model) -> None:
    before = small_model(IDS_BT)
    LoRA().attach(small_model, spec(), seed=1)
    assert torch.equal(small_model(IDS_BT), before)


def test_only_updates_are_trained(small_model: Model) -> None:
    LoRA().attach(small_model, spec(), seed=1)
    trained = trained_parameters(small_model)
    assert all(name.endswith((".a_RI", ".b_OR")) for name in trained)
    (small_model(IDS_BT).logsumexp(-1)).sum().backward()
    with_gradient = {name for name, p in small_model.named_parameters() if p.grad is not None}
    assert with_gradient == set(trained)


def test_in_layer_experts_are_updated_as_the_formula_reads() -> None:
    torch.manual_seed(0)
    experts = InLayerExperts(3, 8, 6).double()
    for weight in experts.parameters():
        torch.nn.init.normal_(weight.requires_grad_(False))
    layer = LoRAExperts(experts, rank=2, scale=1.5)
    x_ND = torch.randn(10, 8, dtype=torch.double, requires_grad=True)
    experts_NK, weights_NK = torch.randint(0, 3, (10, 2)), torch.rand(10, 2, dtype=torch.double)
    gate_up, down = layer.update("gate_up_E2FD"), layer.update("down_EDF")
    factors = [gate_up.a_RI, gate_up.b_OR, down.a_RI, down.b_OR]
    for factor in factors:
        torch.nn.init.normal_(factor)

    def formula() -> torch.Tensor:
        y_ND = torch.zeros_like(x_ND)
        for token, chosen in enumerate(experts_NK.tolist()):
            for slot, e in enumerate(chosen):
                x = x_ND[token]
                h = experts.gate_up_E2FD[e] @ x + 1.5 * gate_up.b_OR[e] @ (gate_up.a_RI[e] @ x)
                a = F.silu(h[:6]) * h[6:]
                out = experts.down_EDF[e] @ a + 1.5 * down.b_OR[e] @ (down.a_RI[e] @ a)
                y_ND = y_ND.index_add(0, torch.tensor([token]), weights_NK[token, slot] * out[None])
        return y_ND

    ours, expected = layer(x_ND, experts_NK, weights_NK), formula()
    torch.testing.assert_close(ours, expected)
    gradients = [torch.autograd.grad((y**2).sum(), [x_ND, *factors]) for y in (ours, expected)]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("keep", [False, True])
def test_updated_weights_of_in_layer_experts_are_not_kept_between_the_passes(keep: bool) -> None:
    experts = InLayerExperts(3, 8, 6).requires_grad_(False)
    seen: list[weakref.ref[torch.Tensor]] = []

    def watched(*tensors: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.extend(weakref.ref(tensor) for tensor in tensors[3:])
        return swiglu_experts(*tensors, **options)

    experts.function = cast(ExpertsFunction, watched)
    layer = LoRAExperts(experts, rank=2, scale=1.5, keep=keep)
    y_ND = layer(torch.randn(10, 8), torch.randint(0, 3, (10, 2)), torch.rand(10, 2))
    assert [weight() is not None for weight in seen] == [keep, keep]
    y_ND.sum().backward()


@pytest.mark.parametrize("recompute", [False, True])
def test_computing_layers_again_gives_the_same_gradients(small_model: Model, recompute: bool) -> None:
    model = attached(small_model).train()
    expected = gradients(model)
    model.recompute = recompute
    for module in model.modules():
        if isinstance(module, LoRAExperts):
            module.keep = recompute
    for name, gradient in gradients(model).items():
        assert torch.equal(gradient, expected[name]), name


def gradients(model: Model) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(IDS_BT).logsumexp(-1).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("targets", "modules", "parameters"),
    [
        (["Attention"], {"q_proj", "k_proj", "v_proj", "o_proj"}, set()),
        (["InLayerExperts"], set(), {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}),
    ],
)
def test_targets_are_told_to_peft(
    small_model: Model, tmp_path: Path, targets: list[str], modules: set[str], parameters: set[str]
) -> None:
    LoRA().write(tmp_path, attached(small_model, targets=targets), ByteTokenizer(), spec(targets=targets))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (set(config["target_modules"]), set(config["target_parameters"])) == (modules, parameters)


def test_a_target_that_the_base_lacks_is_refused(small_model: Model) -> None:
    with pytest.raises(
        JobError, match="targets has FeedForward, but the base has no such part: its parts are Attention, In"
    ):
        LoRA().attach(small_model, spec(targets=["FeedForward"]), seed=1)


def test_moving_the_routers_of_the_base_is_refused(small_model: Model) -> None:
    training = spec().model_copy(update={"balancing": Balancing(bias="Sign")})
    with pytest.raises(JobError, match="leaves the base as it is: set it to None"):
        LoRA().attach(small_model, training, seed=1)


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_merging_gives_an_ordinary_model_with_the_same_logits(
    small_model: Model, tmp_path: Path, rank_stabilised: bool
) -> None:
    model = attached(small_model, rank_stabilised=rank_stabilised)
    expected = model(IDS_BT)
    LoRA().write(tmp_path, model, ByteTokenizer(), spec(rank_stabilised=rank_stabilised))
    merged = everywhere_random(Model(SMALL)).eval()
    assert not torch.allclose(merged(IDS_BT), expected, atol=0.05)
    LoRA().load(tmp_path, merged)
    assert [type(m) for m in merged.modules()] == [type(m) for m in Model(SMALL).modules()]
    assert all(parameter.requires_grad for parameter in merged.parameters())
    torch.testing.assert_close(merged(IDS_BT), expected, atol=1e-4, rtol=1e-4)


def test_training_lora_beside_the_base(pool: Pool) -> None:
    made = pool.train(pool.job(max_steps=60, **LORA))
    assert made.final_loss < 0.7 * pool.report(made)["losses"][0]


@pytest.mark.parametrize("router", ["qwen3_moe", "glm4_moe"])
def test_peft_loads_an_adapter_on_its_base_in_transformers_with_the_same_logits(
    tmp_path: Path, router: Literal["qwen3_moe", "glm4_moe"]
) -> None:
    import peft
    import transformers

    shared = {"n_shared_experts": 1} if router == "glm4_moe" else {}
    config = SMALL.model_copy(update={"model_type": router} | shared)
    model = everywhere_random(Model(config)).eval()
    checkpoint_format.write(tmp_path, "base", model, ByteTokenizer(), "{}")
    before = model(IDS_BT)
    (tmp_path / "adapter").mkdir()
    LoRA().write(tmp_path / "adapter", attached(model), ByteTokenizer(), spec())
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS_BT).logits, model(IDS_BT), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(model(IDS_BT), before, atol=0.05)


@pytest.mark.parametrize("architecture", ["llama", "qwen3-moe", "mixtral", "olmoe", "glm4-moe"])
def test_peft_loads_an_adapter_of_any_decoder_with_the_same_logits(tmp_path: Path, architecture: str) -> None:
    import peft
    from tests.trainer.hugging_face.conftest import network

    from moe_trainer.hugging_face.decoder import Decoder

    base = network(architecture)
    ours = Decoder(copy.deepcopy(base), {}, {}).eval()
    before = ours(IDS_BT)
    LoRA().write(tmp_path, attached(ours), ByteTokenizer(), spec())
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS_BT).logits, ours(IDS_BT), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(ours(IDS_BT), before, atol=0.05)
        LoRA().load(tmp_path, merged := Decoder(network(architecture), {}, {}).eval())
        torch.testing.assert_close(merged(IDS_BT), ours(IDS_BT), atol=1e-4, rtol=1e-4)
