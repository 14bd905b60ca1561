"""The losses against their formulas, and where their minima are."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from moe_formats.training_spec import Schedule, TrainingSpec
from moe_trainer.models.preset_model import Model
from moe_trainer.moe.router import route
from moe_trainer.moe.routing import RouterConfig, Routing, Scores
from moe_trainer.training.losses import BalanceScope, load_balancing_loss, router_z_loss, target_load
from moe_trainer.training.optimization import BETAS, EPSILON, FINAL_SHARE, AdamW, learning_rate

SCOPES: tuple[BalanceScope, ...] = ("MicroBatch", "Sequence", "GlobalBatch")


def routing(logits_NE: Tensor, active: int = 2, groups: int = 1, scores: Scores = "softmax") -> Routing:
    return route(logits_NE, RouterConfig(logits_NE.shape[1], active, scores=scores), groups=groups)


def random_logits(tokens: int, experts: int, seed: int = 0) -> Tensor:
    return torch.randn(tokens, experts, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loss(made: Routing, scope: BalanceScope, target_E: Tensor | None = None) -> Tensor:
    """Return the loss of a step that has one micro-batch."""
    counts_E = made.counts_GE.sum(dim=0)
    return load_balancing_loss(made, scope, step_counts_E=counts_E, target_E=target_E)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_the_load_balancing_loss_is_one_when_balanced(scope: BalanceScope, scores: Scores) -> None:
    balanced = routing(10 * torch.eye(8).repeat(4, 1), active=1, groups=2, scores=scores)
    assert loss(balanced, scope).item() == pytest.approx(1)


@pytest.mark.parametrize("scope", SCOPES)
def test_the_load_balancing_loss_is_the_number_of_experts_when_one_takes_all(scope: BalanceScope) -> None:
    collapsed = routing(torch.tensor([[50.0, 0, 0, 0]]).repeat(16, 1), active=1, groups=4)
    assert loss(collapsed, scope).item() == pytest.approx(4)


@pytest.mark.parametrize("active", [1, 2, 6])
@pytest.mark.parametrize("groups", [1, 4])
def test_each_scope_is_its_formula(groups: int, active: int) -> None:
    made = routing(random_logits(100, 6), active=active, groups=groups)
    earlier = routing(random_logits(40, 6, seed=1), active=active)

    def formula(rows: list[list[int]], p: list[float]) -> float:
        slots = [expert for row in rows for expert in row]
        return 6 * sum(slots.count(e) / len(slots) * p[e] for e in range(6))

    rows, length = made.experts_NK.tolist(), 100 // groups
    p = made.probabilities_GE.mean(dim=0).tolist()
    sequences = [
        formula(rows[length * g : length * (g + 1)], made.probabilities_GE[g].tolist()) for g in range(groups)
    ]
    step_counts_E = made.counts_GE.sum(dim=0) + earlier.counts_GE[0]
    found = {scope: load_balancing_loss(made, scope, step_counts_E=step_counts_E).item() for scope in SCOPES}
    assert found == pytest.approx(
        {
            "MicroBatch": formula(rows, p),
            "Sequence": sum(sequences) / groups,
            "GlobalBatch": formula(rows + earlier.experts_NK.tolist(), p),
        }
    )


def test_the_scopes_agree_where_all_sequences_are_alike() -> None:
    made = routing(random_logits(20, 5).repeat(3, 1), groups=3)
    values = [loss(made, scope).item() for scope in SCOPES]
    assert values == pytest.approx([values[0]] * 3)


def test_balance_over_the_batch_is_none_over_its_sequences() -> None:
    logits_NE = 20 * torch.eye(4).repeat_interleave(5, dim=0)  # each sequence has one expert to itself
    made = routing(logits_NE, active=1, groups=4)
    assert loss(made, "MicroBatch").item() == pytest.approx(1)
    assert loss(made, "Sequence").item() == pytest.approx(4)


def test_the_global_batch_needs_the_counts_of_the_step() -> None:
    with pytest.raises(
        ValueError, match=r"GlobalBatch needs step_counts_E: pass what StepCounts\.add returns"
    ):
        load_balancing_loss(routing(random_logits(4, 4)), "GlobalBatch")


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_the_gradient_pushes_a_crowded_router_apart(scope: BalanceScope, scores: Scores) -> None:
    logits_NE = torch.tensor([[2.0, 0, 0, 0]]).repeat(16, 1).requires_grad_()
    loss(routing(logits_NE, active=1, groups=4, scores=scores), scope).backward()  # type: ignore[no-untyped-call]
    assert logits_NE.grad is not None
    assert (logits_NE.grad[:, 0] > 0).all() and (logits_NE.grad[:, 1:] < 0).all()


def shared_choice(p_E: Tensor) -> Routing:
    """Return a routing whose load is its probabilities: what many tokens with one distribution draw."""
    tokens = 10**9
    counts_E = (p_E * tokens).round().long()
    empty = torch.zeros(0, 1)
    return Routing(empty.long(), empty, counts_E[None], p_E[None], empty[:, 0], empty.sum(), empty.sum())


@pytest.mark.parametrize("base_load", [[1, 1, 1, 1], [4, 3, 2, 1], [5, 0, 0, 0]])
def test_the_loss_is_least_and_one_where_the_load_is_the_target(base_load: list[int]) -> None:
    target_E = target_load(torch.tensor(base_load)).double()
    at_target = loss(shared_choice(target_E), "MicroBatch", target_E).item()
    assert at_target == pytest.approx(1, rel=1e-6)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        elsewhere_E = torch.rand(4, dtype=torch.float64, generator=generator)
        elsewhere_E /= elsewhere_E.sum()
        excess = ((elsewhere_E - target_E).square() / target_E).sum().item()  # chi-squared: 0 at the target
        assert loss(shared_choice(elsewhere_E), "MicroBatch", target_E).item() == pytest.approx(
            1 + excess, rel=1e-6
        )


@pytest.mark.parametrize("scope", SCOPES)
def test_an_even_base_asks_for_what_no_base_asks_for(scope: BalanceScope) -> None:
    made = routing(random_logits(60, 6), groups=3)
    against_even = loss(made, scope, target_load(torch.full((6,), 17)))
    assert against_even.item() == pytest.approx(loss(made, scope).item())


def test_a_target_is_the_bases_load_kept_away_from_zero() -> None:
    assert target_load(torch.tensor([3, 1, 0, 0])).tolist() == pytest.approx([0.7, 0.25, 0.025, 0.025])
    assert target_load(torch.tensor([[3, 1], [0, 8]])).sum(dim=1).tolist() == pytest.approx([1, 1])


def test_the_z_loss_is_the_mean_square_of_the_log_partition() -> None:
    logits = torch.tensor([[0.0, 0, 0, 0], [1.0, 1, 1, 1]])
    expected = (math.log(4) ** 2 + (1 + math.log(4)) ** 2) / 2
    assert router_z_loss(routing(logits)).item() == pytest.approx(expected)


def test_the_optimizer_takes_the_steps_of_torchs_adamw(small_model: Model) -> None:
    spec = TrainingSpec(learning_rate=0.01, weight_decay=0.1)
    theirs = Model(small_model.config)
    theirs.load_state_dict(small_model.state_dict())
    kept = [p for n, p in theirs.named_parameters() if p.dim() == 1 or "embed_tokens" in n]
    decayed = [p for p in theirs.parameters() if not any(p is other for other in kept)]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": kept, "weight_decay": 0.0}]
    expected = torch.optim.AdamW(groups, lr=0.01, betas=BETAS, eps=EPSILON)
    ours = AdamW(small_model, spec)
    ids = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        for model in (small_model, theirs):
            F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        ours.step(0.01)
        small_model.zero_grad()
        expected.step()
        expected.zero_grad()
    for mine, other in zip(small_model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def test_the_learning_rate_warms_up_and_falls_to_its_final_share() -> None:
    spec = TrainingSpec(learning_rate=1.0, warmup_fraction=0.1)
    rates = [learning_rate(spec, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert max(rates) == rates[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(FINAL_SHARE, abs=0.01)
    assert learning_rate(spec, 0, 1) == 1.0


@pytest.mark.parametrize(("schedule", "middle", "last"), [("Linear", 0.55, 0.1), ("Constant", 1.0, 1.0)])
def test_the_learning_rate_of_other_schedules(schedule: Schedule, middle: float, last: float) -> None:
    spec = TrainingSpec(learning_rate=1.0, warmup_fraction=0.2, schedule=schedule)
    rates = [learning_rate(spec, step, 100) for step in range(101)]
    assert rates[9] == 0.5 and rates[19] == rates[20] == 1.0
    assert rates[60] == pytest.approx(middle) and rates[100] == pytest.approx(last)
