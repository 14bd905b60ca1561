"""Our layer as one of transformers' implementations of in-layer experts, used without anything else of ours."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GptOssConfig, PreTrainedModel

from moe_trainer.hugging_face.experts import IMPLEMENTATION, refusal
from moe_trainer.models.in_layer import holds_in_layer_experts

from .conftest import CONFIGS, MIXTURES, ids, network


def in_layer_experts(made: PreTrainedModel) -> list[nn.Module]:
    return [module for module in made.modules() if holds_in_layer_experts(module)]


@pytest.mark.parametrize("name", MIXTURES)
def test_from_config_takes_the_implementation_by_its_name(name: str) -> None:
    ours = AutoModelForCausalLM.from_config(CONFIGS[name](), experts_implementation=IMPLEMENTATION)
    ours.load_state_dict(network(name).state_dict())
    torch.testing.assert_close(ours.eval()(ids()).logits, network(name)(ids()).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)
def test_outputs_and_every_gradient_are_those_of_eager(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    made = network(name).to(dtype)
    layer = in_layer_experts(made)[0]
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(24, 32, generator=generator).to(dtype).requires_grad_()
    chosen = torch.rand(24, 4, generator=generator).topk(2).indices
    weights = torch.rand(24, 2, generator=generator).to(dtype).requires_grad_()
    found = []
    for implementation in ("eager", IMPLEMENTATION):
        made.set_experts_implementation(implementation)
        y = layer(x, chosen, weights)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, weights, *layer.parameters()))))
    for expected, ours in zip(*found, strict=True):
        assert ours.dtype == expected.dtype
        assert (ours - expected).norm() <= tolerance * expected.norm()


def test_under_autocast_the_products_are_in_its_type_and_parameters_get_their_own() -> None:
    made = network("qwen3-moe")
    made.set_experts_implementation(IMPLEMENTATION)
    layer = in_layer_experts(made)[0]
    x, chosen, weights = torch.randn(8, 32), torch.randint(4, (8, 2)), torch.rand(8, 2)
    exact = layer(x, chosen, weights)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x, chosen, weights)
    y.sum().backward()
    assert not torch.equal(y, exact)
    torch.testing.assert_close(y, exact, atol=0.1, rtol=0.05)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


def test_a_slot_that_was_dropped_adds_nothing() -> None:
    made = network("mixtral")
    made.set_experts_implementation(IMPLEMENTATION)
    layer = in_layer_experts(made)[0]
    x, weights = torch.randn(8, 32), torch.ones(8, 2)
    both = layer(x, torch.tensor([[0, 4]]).expand(8, 2), weights)
    one = layer(x, torch.tensor([[0]]).expand(8, 1), weights[:, :1])
    torch.testing.assert_close(both, one)


def test_what_our_layer_cannot_compute_is_refused_with_the_reason_and_what_to_do() -> None:
    config = GptOssConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        pad_token_id=0,
    )
    made = AutoModelForCausalLM.from_config(config, experts_implementation=IMPLEMENTATION)
    assert refusal(in_layer_experts(made)[0]) == "its weights are transposed or interleaved"
    with pytest.raises(ValueError, match=r"GptOssExperts: its weights are transposed.*grouped_mm"):
        made(ids())
