"""The router in C beside the plain one in double precision: every output, and the gradient through each of them."""

import math

import pytest
import torch
from torch import Tensor

from moe_trainer.moe import native
from moe_trainer.moe.native.library import unavailable
from moe_trainer.moe.router import LogitsNotFinite, route
from moe_trainer.moe.router_function import RouterCase
from moe_trainer.moe.routing import RouterConfig, Routing

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=f"no C library here: {unavailable()}")

CONFIGS = {
    "softmax": RouterConfig(8, 2),
    "one of many": RouterConfig(100, 1, renormalise=False),
    "all of them": RouterConfig(5, 5),
    "eight": RouterConfig(128, 8),
    "one in-layer expert": RouterConfig(1, 1),
    "sigmoid": RouterConfig(16, 3, scores="sigmoid", scale=2.5),
    "sigmoid, not renormalised": RouterConfig(7, 2, renormalise=False, scores="sigmoid"),
    "all groups": RouterConfig(12, 2, expert_groups=4, chosen_groups=4),
}
SMOOTH = ("weights_NK", "probabilities_GE", "logsumexp_N")
SUMS = ("counts_GE", "dropped", "logit_rms")


def logits(tokens: int, experts: int) -> Tensor:
    generator = torch.Generator().manual_seed(tokens)
    return 3 * torch.randn(tokens, experts, generator=generator)


def both(
    logits_NE: Tensor, config: RouterConfig, bias_E: Tensor | None = None, groups: int = 1
) -> tuple[tuple[Routing, Tensor], tuple[Routing, Tensor]]:
    """Return the routing and its logits, in C, and plainly in double precision."""
    narrow, wide = logits_NE.clone().requires_grad_(), logits_NE.double().requires_grad_()
    assert native.suits_router(RouterCase.of(narrow, config))
    return (
        (route(narrow, config, bias_E, groups), narrow),
        (route(wide, config, None if bias_E is None else bias_E.double(), groups), wide),
    )


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.to(expected.dtype), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize(("tokens", "groups"), [(1, 1), (70, 2), (4, 4), (0, 1)])
def test_every_output_is_the_plain_routers(
    config: RouterConfig, tokens: int, groups: int, biased: bool
) -> None:
    bias_E = logits(1, config.experts)[0] / 4 if biased else None
    (found, _), (expected, _) = both(logits(tokens, config.experts), config, bias_E, groups)
    assert found.experts_NK.tolist() == expected.experts_NK.tolist()
    for name in (*SMOOTH, *SUMS):
        assert_close(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("output", [*SMOOTH, "all of them"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_gradient_through_each_output_is_the_plain_routers(config: RouterConfig, output: str) -> None:
    gradients = []
    for made, logits_NE in both(logits(70, config.experts), config, groups=2):
        outputs = [getattr(made, name) for name in SMOOTH if output in (name, "all of them")]
        weights = [torch.linspace(-1, 1, one.numel(), dtype=one.dtype).view_as(one) for one in outputs]
        torch.autograd.backward(outputs, weights)
        assert logits_NE.grad is not None
        gradients.append(logits_NE.grad)
    assert_close(*gradients)


def test_of_equal_scores_the_first_is_chosen() -> None:
    for config, bias_E in (
        (RouterConfig(9, 3), None),
        (RouterConfig(9, 3, scores="sigmoid"), torch.full((9,), -1.0)),
    ):
        made = route(torch.zeros(5, 9, requires_grad=True), config, bias_E)
        assert made.experts_NK.tolist() == [[0, 1, 2]] * 5


def test_of_equal_scores_the_first_stays_when_a_better_one_comes() -> None:
    logits_NE = torch.tensor([[5.0, 5.0, 7.0, 5.0], [1.0, 2.0, 2.0, 3.0]], requires_grad=True)
    assert route(logits_NE, RouterConfig(4, 2)).experts_NK.tolist() == [[2, 0], [3, 1]]
    assert route(logits_NE, RouterConfig(4, 3)).experts_NK.tolist() == [[2, 0, 1], [3, 1, 2]]


def test_scores_that_differ_in_their_last_bit_are_told_apart() -> None:
    bias_E = torch.full((8,), 0.5)
    bias_E[6] = torch.nextafter(bias_E[6], torch.tensor(1.0))
    bias_E[3] = torch.nextafter(bias_E[3], torch.tensor(0.0))
    made = route(torch.zeros(1, 8, requires_grad=True), RouterConfig(8, 8, scores="sigmoid"), bias_E - 0.5)
    assert made.experts_NK[0].tolist() == [6, 0, 1, 2, 4, 5, 7, 3]


def test_a_row_that_must_not_be_chosen_has_no_probability() -> None:
    logits_NE = torch.tensor([[0.5, -1e9, 0.1]], requires_grad=True)
    made = route(logits_NE, RouterConfig(3, 2))
    assert made.experts_NK.tolist() == [[0, 2]] and made.probabilities_GE[0, 1] == 0


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_no_bias_opens_a_row_that_must_not_be_chosen(scores: str) -> None:
    logits_NE = torch.tensor([[0.5, -1e9, 0.1]], requires_grad=True)
    made = route(logits_NE, RouterConfig(3, 2, scores=scores), torch.full((3,), -5.0))  # type: ignore[arg-type]
    assert made.experts_NK.tolist() == [[0, 2]]


def test_logits_far_apart_keep_their_log_sum_exp() -> None:
    logits_NE = torch.tensor([[300.0, -300.0], [-1e4, -1e4]], requires_grad=True)
    made = route(logits_NE, RouterConfig(2, 1))
    assert made.logsumexp_N.tolist() == pytest.approx([300, -1e4 + math.log(2)])
    (slope,) = torch.autograd.grad(made.logsumexp_N.sum(), logits_NE)
    # Single precision has three digits behind the point at 10 000.
    torch.testing.assert_close(slope, torch.tensor([[1, 0], [0.5, 0.5]]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_logits_that_are_not_finite_are_an_error_that_names_the_layer(bad: float, scores: str) -> None:
    logits_NE = torch.zeros(5, 40)
    logits_NE[3, 2] = bad
    with pytest.raises(LogitsNotFinite, match="logits of layer 7 hold NaN or infinity"):
        route(logits_NE.requires_grad_(), RouterConfig(40, 2, scores=scores), layer=7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("logits_NE", "config"),
    [
        (torch.zeros(3, 4), RouterConfig(4, 2)),
        (torch.zeros(3, 4, dtype=torch.float64, requires_grad=True), RouterConfig(4, 2)),
        (
            torch.zeros(3, 4, requires_grad=True),
            RouterConfig(4, 1, expert_groups=2, chosen_groups=1),
        ),
    ],
    ids=["no backward pass", "double precision", "groups"],
)
def test_the_rest_is_computed_plainly(logits_NE: Tensor, config: RouterConfig) -> None:
    assert not native.suits_router(RouterCase.of(logits_NE, config))
    assert route(logits_NE, config).experts_NK.shape == (3, config.active)
