"""The router against its formulas, written out token by token without torch."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from moe_trainer.moe.router import LogitsNotFinite, route
from moe_trainer.moe.routing import RouterConfig

CONFIGS = {
    "softmax": RouterConfig(8, 2),
    "softmax, not renormalised": RouterConfig(8, 3, renormalise=False),
    "softmax, groups": RouterConfig(8, 3, expert_groups=4, chosen_groups=2),
    "sigmoid": RouterConfig(8, 2, scores="sigmoid"),
    "sigmoid, scaled": RouterConfig(8, 4, scores="sigmoid", scale=2.5),
    "sigmoid, not renormalised": RouterConfig(7, 1, scores="sigmoid", renormalise=False),
    "sigmoid, groups": RouterConfig(12, 4, scores="sigmoid", expert_groups=3, chosen_groups=2),
    "groups of one": RouterConfig(6, 2, scores="sigmoid", expert_groups=6, chosen_groups=2),
    "all of them": RouterConfig(8, 8),
}


def random_logits(tokens: int, experts: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(tokens, experts, dtype=torch.float64, generator=generator).to(dtype)


def scores_of(logits: list[float], config: RouterConfig) -> list[float]:
    if config.scores == "sigmoid":
        return [1 / (1 + math.exp(-logit)) for logit in logits]
    total = sum(math.exp(logit) for logit in logits)
    return [math.exp(logit) / total for logit in logits]


def choose(scores: list[float], bias: list[float], config: RouterConfig) -> dict[int, float]:
    """Return a token's in-layer experts with their weights, best first."""
    biased = [score + b for score, b in zip(scores, bias, strict=True)]
    size = config.experts // config.expert_groups
    groups = [range(first, first + size) for first in range(0, config.experts, size)]
    best = 1 if config.scores == "softmax" else 2
    groups.sort(key=lambda group: -sum(sorted((biased[e] for e in group), reverse=True)[:best]))
    open_experts = [e for group in groups[: config.chosen_groups] for e in group]
    chosen = sorted(open_experts, key=lambda e: -biased[e])[: config.active]
    total = sum(scores[e] for e in chosen) if config.renormalise else 1
    return {e: config.scale * scores[e] / total for e in chosen}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_token_gets_the_choice_and_the_weights_of_the_formula(
    name: str, biased: bool, dtype: torch.dtype
) -> None:
    config = CONFIGS[name]
    logits_NE = random_logits(23, config.experts, dtype)
    bias_E = random_logits(1, config.experts, dtype, seed=1)[0] / 4 if biased else torch.zeros(config.experts)
    made = route(logits_NE, config, bias_E if biased else None)
    for token, logits in enumerate(logits_NE.tolist()):
        expected = choose(scores_of(logits, config), bias_E.tolist(), config)
        assert made.experts_NK[token].tolist() == list(expected)
        assert made.weights_NK[token].tolist() == pytest.approx(list(expected.values()), rel=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_sums_for_balancing_are_those_of_each_sequence(name: str) -> None:
    config = CONFIGS[name]
    logits_NE = random_logits(24, config.experts)
    made = route(logits_NE, config, groups=3)
    for group in range(3):
        rows = slice(8 * group, 8 * group + 8)
        chosen = made.experts_NK[rows].flatten().tolist()
        assert made.counts_GE[group].tolist() == [chosen.count(e) for e in range(config.experts)]
        shares = [
            [score / sum(scores) for score in scores]
            for scores in (scores_of(logits, config) for logits in logits_NE[rows].tolist())
        ]
        means = [sum(column) / 8 for column in zip(*shares, strict=True)]
        assert made.probabilities_GE[group].tolist() == pytest.approx(means)
    flat = logits_NE.flatten().tolist()
    assert made.logit_rms.item() == pytest.approx(math.sqrt(sum(x * x for x in flat) / len(flat)))
    expected = [math.log(sum(math.exp(logit) for logit in logits)) for logits in logits_NE.tolist()]
    assert made.logsumexp_N.tolist() == pytest.approx(expected)
    assert made.dropped.item() == 0


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_those_of_finite_differences(name: str, groups: int) -> None:
    config = CONFIGS[name]
    bias_E = random_logits(1, config.experts, seed=1)[0] / 4

    def outputs(logits_NE: Tensor) -> tuple[Tensor, ...]:
        made = route(logits_NE, config, bias_E, groups)
        return made.weights_NK, made.probabilities_GE, made.logsumexp_N

    assert torch.autograd.gradcheck(outputs, random_logits(4, config.experts).requires_grad_())


@pytest.mark.parametrize("experts", [1, 3, 8, 32, 300])
def test_of_equal_scores_the_first_is_chosen(experts: int) -> None:
    config = RouterConfig(experts, min(3, experts))
    made = route(torch.zeros(5, experts), config)
    assert made.experts_NK.tolist() == [list(range(config.active))] * 5


@pytest.mark.parametrize("tokens", [5, 500])
def test_of_equal_scores_below_zero_the_first_is_chosen_too(tokens: int) -> None:
    made = route(torch.zeros(tokens, 8), RouterConfig(8, 3, scores="sigmoid"), torch.full((8,), -1.0))
    assert made.experts_NK.tolist() == [[0, 1, 2]] * tokens


def test_scores_that_differ_in_their_last_bit_are_told_apart() -> None:
    logits_NE = torch.zeros(1, 8)
    bias_E = torch.full((8,), 0.5)
    bias_E[6] = torch.nextafter(bias_E[6], torch.tensor(1.0))
    bias_E[3] = torch.nextafter(bias_E[3], torch.tensor(0.0))
    made = route(logits_NE, RouterConfig(8, 8, scores="sigmoid"), bias_E - 0.5)
    assert made.experts_NK[0].tolist() == [6, 0, 1, 2, 4, 5, 7, 3]


def test_a_bias_changes_the_choice_but_no_weight() -> None:
    logits_NE = torch.tensor([[2.0, 1.0, 0.0]])
    config = RouterConfig(3, 1, scores="sigmoid", renormalise=False)
    made = route(logits_NE, config, torch.tensor([0.0, 0.0, 0.9]))
    assert made.experts_NK.tolist() == [[2]]
    assert made.weights_NK.item() == 0.5


def test_narrow_logits_are_routed_in_single_precision() -> None:
    made = route(random_logits(9, 4, torch.bfloat16), RouterConfig(4, 2))
    assert made.weights_NK.dtype == made.probabilities_GE.dtype == torch.float32
    assert made.weights_NK.sum(dim=1).tolist() == pytest.approx([1] * 9)


def test_no_token_is_no_slot_and_no_error() -> None:
    made = route(torch.empty(0, 4), RouterConfig(4, 2, expert_groups=2, chosen_groups=1))
    assert made.experts_NK.shape == made.weights_NK.shape == (0, 2)
    assert made.counts_GE.tolist() == [[0] * 4] and made.probabilities_GE.tolist() == [[0] * 4]
    assert made.finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_logits_that_are_not_finite_are_an_error_that_names_the_layer(bad: float, scores: str) -> None:
    logits_NE = torch.zeros(5, 4)
    logits_NE[3, 2] = bad
    config = RouterConfig(4, 2, scores=scores)  # type: ignore[arg-type]
    with pytest.raises(
        LogitsNotFinite, match=r"logits of layer 7 hold NaN or infinity.*Lower the learning rate"
    ):
        route(logits_NE, config, layer=7)
    with pytest.raises(LogitsNotFinite, match="the router's logits hold NaN"):
        route(logits_NE, config)


def test_a_device_that_is_not_waited_for_tells_later() -> None:
    made = route(torch.ones(5, 4), RouterConfig(4, 2))
    assert made.finite
    assert not replace(made, logit_rms=torch.tensor(math.nan)).finite


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"active": 9}, "active is 9, but a token uses 1 to 8 in-layer experts: lower it or raise experts"),
        ({"active": 0}, "active is 0, but a token uses 1 to 8"),
        ({"expert_groups": 3}, "8 in-layer experts do not form 3 groups of equal size"),
        ({"expert_groups": 0}, "expert_groups must divide experts"),
        (
            {"expert_groups": 4, "active": 3},
            "leaves 2 in-layer experts to choose 3 from: set it between 2 and 4",
        ),
        ({"chosen_groups": 2}, "chosen_groups is 2 of 1"),
        ({"expert_groups": 2, "chosen_groups": 0}, "chosen_groups is 0 of 2"),
        ({"scale": 0.0}, "scale is 0.0"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RouterConfig(8, 2), **values)


def test_tensors_that_do_not_fit_the_router_are_refused() -> None:
    config = RouterConfig(4, 2)
    with pytest.raises(ValueError, match=r"logits have shape \[6, 5\], but the router has 4 .* pass N x 4"):
        route(torch.zeros(6, 5), config)
    with pytest.raises(ValueError, match="6 tokens are not 4 sequences of the same length"):
        route(torch.zeros(6, 4), config, groups=4)
    with pytest.raises(ValueError, match=r"bias has shape \[5\], but must have 4 numbers"):
        route(torch.zeros(6, 4), config, torch.zeros(5))
