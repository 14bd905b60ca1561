"""Counting, measuring and moving the bias; that a bias really balances; capacity."""

import math
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

from moe_trainer.moe.balance import BiasRule, LayerLoad, StepCounts, update_bias
from moe_trainer.moe.capacity import capacity, drop_beyond_capacity
from moe_trainer.moe.router import route
from moe_trainer.moe.routing import RouterConfig, Routing


def routing(tokens: int = 30, experts: int = 5, active: int = 2, seed: int = 0, groups: int = 1) -> Routing:
    generator = torch.Generator().manual_seed(seed)
    logits_NE = torch.randn(tokens, experts, generator=generator)
    return route(logits_NE, RouterConfig(experts, active), groups=groups)


def test_the_sign_rule_moves_every_bias_by_its_rate_and_keeps_the_mean_at_zero() -> None:
    bias_E = torch.tensor([0.5, -0.5, 0.0, 0.0])
    update_bias(bias_E, torch.tensor([10, 2, 4, 4]), 0.1, "Sign")
    # mean 5: steps of -0.1, +0.1, +0.1, +0.1, whose mean 0.05 is taken off again
    assert bias_E.tolist() == pytest.approx([0.35, -0.45, 0.05, 0.05])


def test_the_proportional_rule_moves_by_the_relative_violation() -> None:
    bias_E = torch.zeros(4)
    update_bias(bias_E, torch.tensor([10, 2, 4, 4]), 0.1, "Proportional")
    assert bias_E.tolist() == pytest.approx([-0.1, 0.06, 0.02, 0.02])


@pytest.mark.parametrize("rule", ["Sign", "Proportional"])
def test_balance_and_nothing_counted_leave_the_bias_alone(rule: BiasRule) -> None:
    for counts_E in (torch.full((4,), 7), torch.zeros(4, dtype=torch.int64)):
        bias_E = torch.tensor([0.3, -0.1, -0.1, -0.1])
        update_bias(bias_E, counts_E, 0.1, rule)
        assert bias_E.tolist() == pytest.approx([0.3, -0.1, -0.1, -0.1])


@pytest.mark.parametrize(("rule", "rate"), [("Sign", 0.005), ("Proportional", 0.02)])
@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_either_rule_balances_a_router_that_prefers_some(scores: str, rule: BiasRule, rate: float) -> None:
    generator = torch.Generator().manual_seed(0)
    preference_E = torch.tensor([1.0, 0.5, 0.0, 0.0, 0.0, -0.5, -0.5, -1.0])
    config = RouterConfig(8, 2, scores=scores)  # type: ignore[arg-type]
    bias_E = torch.zeros(8)

    def step(tokens: int) -> LayerLoad:
        logits_NE = torch.randn(tokens, 8, generator=generator) + preference_E
        counts = StepCounts()
        counts_E = counts.add([route(logits_NE, config, bias_E)])[0]
        update_bias(bias_E, counts_E, rate, rule)
        return counts.loads()[0]

    before = step(4096).max_violation
    for _ in range(300):
        step(512)
    assert before > 0.8
    assert step(4096).max_violation < 0.15


def test_a_load_is_what_its_counts_say() -> None:
    load = LayerLoad((6, 2, 0, 0), dropped=2, logit_rms=1.5)
    assert load.slots == 8
    assert load.shares == (0.75, 0.25, 0, 0)
    assert load.max_violation == 2
    assert load.entropy == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(4))
    assert load.dead == 2
    assert load.drop_rate == 0.25


def test_the_ends_of_the_scales_are_balance_and_collapse() -> None:
    assert (LayerLoad((5,) * 6).max_violation, LayerLoad((5,) * 6).entropy) == pytest.approx((0, 1))
    assert (LayerLoad((30, 0, 0)).max_violation, LayerLoad((30, 0, 0)).entropy) == pytest.approx((2, 0))
    assert (LayerLoad((4,)).max_violation, LayerLoad((4,)).entropy) == (0, 1)


def test_what_cannot_be_known_without_a_slot_is_not_a_number() -> None:
    load = LayerLoad((0, 0, 0))
    assert load.dead == 3
    unknown = (*load.shares, load.max_violation, load.entropy, load.drop_rate, load.logit_rms)
    assert all(math.isnan(number) for number in unknown)


def test_a_step_counts_every_micro_batch_and_layer_exactly() -> None:
    batches = [[routing(seed=10 * batch + layer, groups=3) for layer in range(2)] for batch in range(4)]
    counts = StepCounts()
    assert counts.loads() == []
    expected = torch.zeros(2, 5, dtype=torch.int64)
    for routings in batches:
        for layer, made in enumerate(routings):
            expected[layer] += torch.bincount(made.experts_NK.flatten(), minlength=5)
        assert torch.equal(counts.add(routings), expected)
    loads = counts.loads()
    assert [load.counts for load in loads] == [tuple(row) for row in expected.tolist()]
    squares = [routings[1].logit_rms.item() ** 2 for routings in batches]
    assert loads[1].logit_rms == pytest.approx(math.sqrt(sum(squares) / 4))


def test_counts_beyond_what_a_float_can_hold_stay_exact() -> None:
    huge = (1 << 53) + 1
    made = replace(routing(experts=2), counts_GE=torch.tensor([[huge, 2]]))
    counts = StepCounts()
    counts.add([made])
    counts.add([made])
    assert counts.loads()[0].counts == (2 * huge, 4)


def test_dropped_slots_are_added_up() -> None:
    made = drop_beyond_capacity(routing(tokens=64), 0.5)
    counts = StepCounts()
    counts.add([made, made])
    counts.add([made, made])
    load = counts.loads()[1]
    assert load.dropped == 2 * int(made.dropped) > 0
    assert load.drop_rate == pytest.approx(int(made.dropped) / 128)


def process(rank: int, rendezvous: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    counts = StepCounts(distributed.group.WORLD)
    for batch in range(2):
        counts.add([drop_beyond_capacity(routing(tokens=20, seed=2 * batch + rank), 0.7)])
    made = [drop_beyond_capacity(routing(tokens=20, seed=seed), 0.7) for seed in range(4)]
    expected_E = torch.stack([one.counts_GE[0] for one in made]).sum(dim=0)
    load = counts.loads()[0]
    assert load.counts == tuple(expected_E.tolist())
    assert load.dropped == sum(int(one.dropped) for one in made)
    distributed.destroy_process_group()


def test_a_step_counts_the_slots_of_all_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", __name__])
    processes = [
        context.Process(target=process, args=(rank, f"{tmp_path}/rendezvous"), daemon=True)
        for rank in range(2)
    ]
    for one in processes:
        one.start()
    for one in processes:
        one.join(120)
    assert [one.exitcode for one in processes] == [0, 0]


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 12), (1.25, 15), (1.01, 13), (0.01, 1)])
def test_capacity_is_the_fair_share_times_the_factor_rounded_up(factor: float, expected: int) -> None:
    assert capacity(factor, tokens=30, active=2, experts=5) == expected


@pytest.mark.parametrize("factor", [0, -1.0, math.inf, math.nan])
def test_a_capacity_of_nothing_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=r"capacity_factor is .*, but must be above 0.*None drops nothing"):
        drop_beyond_capacity(routing(), factor)


def kept_by_hand(made: Routing, most: int) -> list[list[bool]]:
    """Return which slots stay: the ``most`` largest weights of each in-layer expert, earlier tokens first."""
    kept = [[False] * made.experts_NK.shape[1] for _ in made.experts_NK]
    for expert in range(made.experts):
        slots = [
            (-made.weights_NK[n, k].item(), n, k)
            for n, row in enumerate(made.experts_NK.tolist())
            for k, chosen in enumerate(row)
            if chosen == expert
        ]
        for _, n, k in sorted(slots)[:most]:
            kept[n][k] = True
    return kept


@pytest.mark.parametrize("factor", [0.2, 0.8, 1.0, 1.3, 50.0])
def test_beyond_capacity_the_smallest_weights_are_dropped(factor: float) -> None:
    made = routing(tokens=41)
    kept_NK = torch.tensor(kept_by_hand(made, capacity(factor, 41, 2, 5)))
    found = drop_beyond_capacity(made, factor)
    assert torch.equal(found.experts_NK, torch.where(kept_NK, made.experts_NK, 5))
    assert torch.equal(found.weights_NK, torch.where(kept_NK, made.weights_NK, 0))
    assert found.dropped == (~kept_NK).sum()
    assert torch.equal(found.counts_GE, made.counts_GE)


def test_of_equal_weights_the_later_tokens_are_dropped() -> None:
    made = route(torch.zeros(6, 4), RouterConfig(4, 2))  # every token: experts 0 and 1, half each
    found = drop_beyond_capacity(made, 1.0)  # room for 3 of 6
    assert found.experts_NK.tolist() == [[0, 1]] * 3 + [[4, 4]] * 3


def test_a_dropped_slot_gets_no_gradient_and_the_others_keep_theirs() -> None:
    def gradient(drop: bool) -> Tensor:
        logits_NE = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
        made = route(logits_NE, RouterConfig(4, 1, renormalise=False))
        made = drop_beyond_capacity(made, 0.5) if drop else made
        made.weights_NK.sum().backward()  # type: ignore[no-untyped-call]
        assert logits_NE.grad is not None
        return torch.where(made.experts_NK < 4, logits_NE.grad, 0) if drop else logits_NE.grad

    dropped_NE, all_NE = gradient(drop=True), gradient(drop=False)
    kept_N = dropped_NE.abs().sum(dim=1) > 0
    assert 0 < kept_N.sum() < 20
    assert torch.equal(dropped_NE[kept_N], all_NE[kept_N])
