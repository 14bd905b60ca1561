"""The fused router is compared with the plain one: every output, and the gradient through each of them."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from moe_trainer.moe import backends
from moe_trainer.moe.plain_router import PLAIN
from moe_trainer.moe.router import route
from moe_trainer.moe.router_function import RouterCase, route_by
from moe_trainer.moe.routing import RouterConfig, Routing
from moe_trainer.moe.triton.router import FUSED

from .conftest import DEVICE, needs_gpu

CONFIGS = {
    "softmax": RouterConfig(8, 2),
    "one of many": RouterConfig(100, 1, renormalise=False),
    "all of them": RouterConfig(5, 5),
    "eight": RouterConfig(24, 8),
    "sigmoid": RouterConfig(16, 3, scores="sigmoid", scale=2.5),
    "sigmoid, not renormalised": RouterConfig(7, 2, renormalise=False, scores="sigmoid"),
    "groups": RouterConfig(12, 3, expert_groups=4, chosen_groups=2),
    "groups of sigmoid scores": RouterConfig(15, 4, scores="sigmoid", expert_groups=3, chosen_groups=2),
    "groups of one": RouterConfig(6, 2, scores="sigmoid", expert_groups=6, chosen_groups=3),
    "all groups": RouterConfig(12, 2, expert_groups=4, chosen_groups=4),
}
PASSES = (FUSED, PLAIN)
#: The outputs that carry gradient.
SMOOTH = ("weights_NK", "probabilities_GE", "logsumexp_N")


def logits(tokens: int, experts: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(tokens)
    return 3 * torch.randn(tokens, experts, generator=generator).to(dtype).to(DEVICE)


def assert_same(found: Routing, expected: Routing) -> None:
    for field in fields(Routing):
        torch.testing.assert_close(
            getattr(found, field.name),
            getattr(expected, field.name),
            atol=1e-6,
            rtol=1e-5,
            msg=lambda m, n=field.name: f"{n}: {m}",
        )


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize(("tokens", "groups"), [(1, 1), (70, 2), (4, 4)])
def test_every_output_is_the_plain_routers(config: RouterConfig, tokens: int, groups: int) -> None:
    logits_NE = logits(tokens, config.experts)
    found, expected = (route_by(passes, logits_NE, config, None, groups) for passes in PASSES)
    assert_same(found, expected)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_bias_takes_part_in_the_choice_alone(config: RouterConfig) -> None:
    bias_E = torch.linspace(-0.3, 0.3, config.experts, device=DEVICE)
    logits_NE = logits(19, config.experts)
    logits_NE[::3, -1] = -1e9  # which closes it, if there are no groups
    found, expected = (route_by(passes, logits_NE, config, bias_E, 1) for passes in PASSES)
    assert_same(found, expected)


@pytest.mark.parametrize("through", [*SMOOTH, "all"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_gradient_through_each_output_is_the_plain_routers(config: RouterConfig, through: str) -> None:
    outputs = SMOOTH if through == "all" else (through,)
    gradients = []
    for passes in PASSES:
        logits_NE = logits(38, config.experts).requires_grad_()
        routing = route_by(passes, logits_NE, config, None, 2)
        generator = torch.Generator().manual_seed(1)
        loss = sum(
            (output * torch.randn(output.shape, generator=generator).to(DEVICE)).sum()
            for output in (getattr(routing, name) for name in outputs)
        )
        gradients.append(torch.autograd.grad(loss, logits_NE)[0])
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_wide_and_odd_numbers_of_in_layer_experts() -> None:
    config = RouterConfig(700, 2)
    logits_NE = logits(3, config.experts)
    found, expected = (route_by(passes, logits_NE, config, None, 1) for passes in PASSES)
    assert_same(found, expected)


def test_programs_of_several_steps_route_as_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_trainer.moe.triton.router.MANY", 0)
    logits_NE = logits(140, 128)
    found, expected = (route_by(passes, logits_NE, RouterConfig(128, 2), None, 2) for passes in PASSES)
    assert_same(found, expected)


def test_of_equal_scores_the_lower_number_is_chosen() -> None:
    routing = route_by(FUSED, torch.zeros(3, 9, device=DEVICE), RouterConfig(9, 4), None, 1)
    assert routing.experts_NK.tolist() == [[0, 1, 2, 3]] * 3


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, under the interpreter
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_logits_that_are_not_finite_still_choose_k_valid_in_layer_experts(
    config: RouterConfig, value: float
) -> None:
    logits_NE = logits(4, config.experts)
    logits_NE[0] = value
    logits_NE[1, 0] = value
    routing = route_by(FUSED, logits_NE, config, None, 1)
    for chosen in routing.experts_NK.tolist():
        assert len(set(chosen)) == config.active
        assert all(0 <= expert < config.experts for expert in chosen)
    assert not routing.finite


def test_no_tokens_are_routed_to_nothing() -> None:
    routing = route_by(FUSED, logits(0, 6), RouterConfig(6, 2), None, 2)
    assert routing.experts_NK.shape == (0, 2)
    assert routing.counts_GE.tolist() == routing.probabilities_GE.tolist() == [[0] * 6] * 2
    assert routing.logit_rms == 0


def test_fp64_is_left_to_the_plain_router() -> None:
    wide = logits(4, 6, torch.float64)
    with pytest.raises(ValueError, match="backend='torch'"):
        route_by(FUSED, wide, RouterConfig(6, 2), None, 1)
    routing = route(wide, RouterConfig(6, 2), backend="triton")
    assert routing.weights_NK.dtype == torch.float64


def test_the_table_gives_the_fused_router_to_every_cuda_device_and_nothing_else() -> None:
    fused = RouterCase("cuda", torch.bfloat16, True, RouterConfig(6, 2))
    for backend in (None, "triton", "cuda"):
        assert backends.router(fused, backend) is FUSED
        for other in (
            replace(fused, device="cpu", dtype=torch.bfloat16),
            replace(fused, dtype=torch.float64),
        ):
            assert backends.router(other, backend) is PLAIN
    assert backends.router(fused, "torch") is backends.router(fused, "reference") is PLAIN


@needs_gpu
@pytest.mark.parametrize("tokens", [64, 5000])
def test_bf16_logits_are_routed_in_fp32(tokens: int) -> None:
    config = RouterConfig(128, 8)
    logits_NE = logits(tokens, 128, torch.bfloat16)
    # Equal bf16 logits may be chosen in another order, so the sorted weights are compared.
    found, expected = (route_by(passes, logits_NE, config, None, 1) for passes in PASSES)
    torch.testing.assert_close(found.weights_NK, expected.weights_NK, atol=1e-6, rtol=1e-5)


@needs_gpu
def test_a_cuda_graph_routes_what_it_is_given_later() -> None:
    config = RouterConfig(128, 8)
    logits_NE = torch.zeros(64, 128, device=DEVICE)
    route(logits_NE, config)  # Compiled before the capture.
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = route(logits_NE, config)
    logits_NE.copy_(logits(64, 128))
    graph.replay()
    assert_same(captured, route(logits_NE, config, backend="torch"))
