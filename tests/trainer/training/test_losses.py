import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from moe_trainer.job_config import TrainingSpec
from moe_trainer.losses import load_balancing_loss, load_max_violation, router_z_loss, shares
from moe_trainer.model import Model
from moe_trainer.moe.router import RouterConfig, route
from moe_trainer.moe.routing import Routing
from moe_trainer.optimization import BETAS, EPSILON, FINAL_SHARE, AdamW, learning_rate


def routing(logits_NE: torch.Tensor, active: int = 2) -> Routing:
    return route(logits_NE, RouterConfig(logits_NE.shape[1], active))


def test_the_load_balancing_loss_is_one_when_balanced_and_larger_when_not() -> None:
    balanced = routing(10 * torch.eye(8).repeat(4, 1), active=1)
    assert load_balancing_loss(balanced).item() == pytest.approx(1)
    collapsed = routing(torch.tensor([[50.0, 0, 0, 0]]).repeat(16, 1), active=1)
    assert load_balancing_loss(collapsed).item() == pytest.approx(4)


def test_the_load_balancing_loss_is_its_formula() -> None:
    made = routing(torch.randn(100, 6, generator=torch.Generator().manual_seed(0)))
    f = [sum(row.count(e) for row in made.experts_NK.tolist()) / 200 for e in range(6)]
    p = made.probabilities_GE.mean(dim=0).tolist()
    expected = 6 * sum(a * b for a, b in zip(f, p, strict=True))
    assert load_balancing_loss(made).item() == pytest.approx(expected, rel=1e-5)
    assert shares(made.counts_GE.sum(dim=0)).sum().item() == pytest.approx(1)


def test_the_load_balancing_loss_pushes_a_crowded_router_apart() -> None:
    logits = torch.tensor([[2.0, 0, 0, 0]]).repeat(16, 1).requires_grad_()
    load_balancing_loss(routing(logits, active=1)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0, 0] > 0 and (logits.grad[0, 1:] < 0).all()


def test_the_z_loss_is_the_mean_square_of_the_log_partition() -> None:
    logits = torch.tensor([[0.0, 0, 0, 0], [1.0, 1, 1, 1]])
    expected = (math.log(4) ** 2 + (1 + math.log(4)) ** 2) / 2
    assert router_z_loss(routing(logits)).item() == pytest.approx(expected)


def test_max_violation_is_zero_in_balance_and_counts_the_worst_layer() -> None:
    balanced = routing(10 * torch.eye(4), active=1)
    collapsed = routing(torch.tensor([[50.0, 0, 0, 0]]).repeat(4, 1), active=1)
    assert load_max_violation([balanced]) == pytest.approx(0)
    assert load_max_violation([balanced, collapsed]) == pytest.approx(3)


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
        ours.clear_gradients()
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
