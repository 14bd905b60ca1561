"""The layer against a loop over tokens that shares no code with it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from moe_trainer.models.preset_config import ModelConfig
from moe_trainer.models.preset_model import layer_config
from moe_trainer.moe.backends import Backend
from moe_trainer.moe.balance import StepCounts
from moe_trainer.moe.layer import MoELayer
from moe_trainer.moe.router import LogitsNotFinite
from moe_trainer.moe.routing import Routing
from moe_trainer.training.losses import load_balancing_loss, router_z_loss

GLM = {"model_type": "glm4_moe"}
LAYERS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "sigmoid": GLM,
    "groups and shared experts": GLM | {"n_group": 3, "topk_group": 2, "n_shared_experts": 2},
    "scaled, not renormalised": GLM | {"routed_scaling_factor": 2.5, "norm_topk_prob": False},
    "one shared expert, one active": GLM | {"n_shared_experts": 1, "num_experts_per_tok": 1},
}


def config(**change: Any) -> ModelConfig:
    sizes = {
        "vocab_size": 1,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 2,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 4,
        "max_position_embeddings": 1,
    }
    return ModelConfig(**(sizes | change))


def make(
    change: dict[str, Any], backend: Backend | None = None, dtype: torch.dtype = torch.float64
) -> MoELayer:
    layer = MoELayer(layer_config(config(**change)), backend, layer=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (*layer.parameters(), *layer.buffers()):
            weight.copy_(0.5 * torch.randn(weight.shape, generator=generator))
    return layer.to(dtype)


def tokens(number: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(number, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)


def by_hand(layer: MoELayer, x_D: Tensor) -> Tensor:
    """Return one token's output: every in-layer expert by itself, the chosen ones by sorting."""
    router = layer.router
    logits_E = layer.gate.weight @ x_D
    scores_E = logits_E.softmax(0) if router.scores == "softmax" else logits_E.sigmoid()
    biased = (scores_E if layer.bias_E is None else scores_E + layer.bias_E).tolist()
    size = router.experts // router.expert_groups
    groups = [list(range(first, first + size)) for first in range(0, router.experts, size)]
    groups.sort(key=lambda group: -sum(sorted(biased[e] for e in group)[-2:]))
    reachable = [e for group in groups[: router.chosen_groups] for e in group]
    chosen = sorted(reachable, key=lambda e: -biased[e])[: router.active]
    total = scores_E[chosen].sum() if router.renormalise else 1.0
    y_D = torch.zeros_like(x_D)
    for e in chosen:
        gate_F, up_F = (layer.experts.gate_up_E2FD[e] @ x_D).chunk(2)
        y_D = y_D + router.scale * scores_E[e] / total * (layer.experts.down_EDF[e] @ (F.silu(gate_F) * up_F))
    if layer.shared_experts is not None:
        shared = layer.shared_experts
        a_F = F.silu(shared.gate_proj.weight @ x_D) * (shared.up_proj.weight @ x_D)
        y_D = y_D + shared.down_proj.weight @ a_F
    return y_D


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("name", LAYERS)
def test_output_and_every_gradient_are_those_of_the_loop(name: str, backend: Backend) -> None:
    layer, x_ND = make(LAYERS[name], backend), tokens(11).requires_grad_()
    inputs = [x_ND, *layer.parameters()]
    dy_ND = torch.randn(11, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y_ND, _ = layer(x_ND)
    expected_ND = torch.stack([by_hand(layer, x_D) for x_D in x_ND])
    torch.testing.assert_close(y_ND, expected_ND, atol=1e-12, rtol=1e-10)
    found = torch.autograd.grad(y_ND, inputs, dy_ND)
    for mine, theirs in zip(found, torch.autograd.grad(expected_ND, inputs, dy_ND), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("name", LAYERS)
def test_narrower_types_stay_close_to_the_loop(name: str, dtype: torch.dtype, tolerance: float) -> None:
    layer = make(LAYERS[name], dtype=dtype)
    x_ND = tokens(64, dtype)
    y_ND, routing = layer(x_ND)
    assert y_ND.dtype == dtype
    wide = layer.double()  # the same weights, after they were rounded
    expected_ND = torch.stack([by_hand(wide, x_D) for x_D in x_ND.double()])
    # A token whose scores are all but equal may be routed otherwise in bf16; that is not what is tested here.
    alike_N = (wide(x_ND.double())[1].experts_NK.sort().values == routing.experts_NK.sort().values).all(dim=1)
    assert alike_N.sum() >= 58
    error = (y_ND.double() - expected_ND)[alike_N].norm() / expected_ND[alike_N].norm()
    assert error < tolerance


def all_losses(layer: MoELayer, x_ND: Tensor, run: Callable[..., Any]) -> tuple[Tensor, StepCounts]:
    """Return a loss that uses every differentiable output of a step of three micro-batches, and its counts."""
    counts, total = StepCounts(), torch.zeros((), dtype=torch.float64)
    for part_ND in x_ND.chunk(3):
        y_ND, routing = run(layer, part_ND)
        balance = load_balancing_loss(routing, "GlobalBatch", step_counts_E=counts.add([routing])[0])
        total = total + y_ND.square().sum() + balance + router_z_loss(routing)
    return total, counts


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("capacity_factor", [None, 0.7])
def test_recomputed_activations_change_neither_counts_nor_gradients(
    reentrant: bool, capacity_factor: float | None
) -> None:
    layer, x_ND = make(GLM | {"n_shared_experts": 1}), tokens(30).requires_grad_()
    layer.capacity_factor = capacity_factor
    inputs = [x_ND, *layer.parameters()]

    def flat(x_ND: Tensor) -> tuple[Tensor, ...]:
        y_ND, routing = layer(x_ND)
        return (y_ND, *vars(routing).values())  # a reentrant checkpoint only follows tensors

    def recomputed(layer: MoELayer, x_ND: Tensor) -> tuple[Tensor, Routing]:
        y_ND, *routing = checkpoint(flat, x_ND, use_reentrant=reentrant)
        return y_ND, Routing(*routing)

    gradients, loads = [], []
    for run in (MoELayer.__call__, recomputed):
        loss, counts = all_losses(layer, x_ND, run)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append([tensor.grad for tensor in inputs])
        loads.append(counts.loads())
        for tensor in inputs:
            tensor.grad = None
    assert loads[0] == loads[1]
    assert loads[0][0].slots == 60
    assert (loads[0][0].dropped > 0) == (capacity_factor is not None)
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(plain, again)  # type: ignore[arg-type]


def test_the_recompute_knob_changes_no_bit_of_a_gradient() -> None:
    layer, x_ND = make({}), tokens(20)
    found = []
    for recompute in (False, True):
        layer.experts.recompute = recompute
        found.append(torch.autograd.grad(layer(x_ND)[0].square().sum(), list(layer.parameters())))
    assert all(torch.equal(plain, again) for plain, again in zip(*found, strict=True))


def test_capacity_drops_in_training_and_never_in_an_answer() -> None:
    layer, x_ND = make({}), tokens(30)
    plain_ND, _ = layer.eval()(x_ND)
    layer.capacity_factor = 0.5
    answered_ND, routing = layer(x_ND)
    assert torch.equal(answered_ND, plain_ND) and routing.dropped == 0
    trained_ND, routing = layer.train()(x_ND)
    assert routing.dropped == (routing.experts_NK == 6).sum() > 0
    whole_N = (routing.experts_NK < 6).all(dim=1)
    torch.testing.assert_close(trained_ND[whole_N], plain_ND[whole_N])
    nothing_N = (routing.experts_NK == 6).all(dim=1)
    assert not trained_ND[nothing_N].any()
    assert not torch.allclose(trained_ND[~whole_N], plain_ND[~whole_N])


def test_a_bias_steers_the_choice() -> None:
    layer, x_ND = make(GLM), tokens(40)
    assert layer.bias_E is not None
    layer.bias_E.copy_(torch.tensor([0, 0, 0, 5, 0, 0]))
    _, routing = layer(x_ND)
    assert (routing.experts_NK[:, 0] == 3).all()
    assert "bias_E" in layer.state_dict() and "bias_E" not in dict(layer.named_parameters())


def test_no_token_gives_no_output() -> None:
    for name in LAYERS:
        y_ND, routing = make(LAYERS[name])(tokens(0))
        assert y_ND.shape == (0, 8) and routing.counts_GE.sum() == 0


def test_logits_that_are_not_finite_name_the_layer() -> None:
    x_ND = tokens(5)
    x_ND[2, 1] = torch.nan
    with pytest.raises(LogitsNotFinite, match="of layer 3 "):
        make({})(x_ND)


@pytest.mark.parametrize(("name", "wide"), [("softmax", False), ("sigmoid", True)])
def test_logits_are_multiplied_in_the_type_of_the_architectures_reference(name: str, wide: bool) -> None:
    layer = make(LAYERS[name], dtype=torch.bfloat16)
    x_ND = tokens(9, torch.bfloat16)
    exact_NE = x_ND.float() @ layer.gate.weight.float().T
    expected_NE = exact_NE if wide else F.linear(x_ND, layer.gate.weight).float()
    assert not torch.equal(exact_NE, exact_NE.bfloat16().float())
    torch.testing.assert_close(layer(x_ND)[1].logsumexp_N, expected_NE.logsumexp(dim=1))
