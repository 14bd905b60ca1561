import pytest
import torch
from torch import Tensor

from moe_trainer.moe.dispatch import Dispatch, dispatch_slots
from moe_trainer.moe.triton.combine import combine

from .conftest import DEVICE


def plain_combine(rows_SD: Tensor, dispatch: Dispatch, weights_NK: Tensor | None) -> Tensor:
    kept = dispatch.places_S < dispatch.offsets_E1[-1]
    rows_NKD = torch.where(kept[:, None], rows_SD[dispatch.places_S].double(), 0).unflatten(
        0, (-1, dispatch.active)
    )
    return (rows_NKD if weights_NK is None else rows_NKD * weights_NK[:, :, None].double()).sum(dim=1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("tokens", "hidden", "active"),
    [(1, 16, 1), (9, 40, 2), (5, 1032, 3), (2, 1536, 4), (33, 8, 8), (0, 8, 2)],
)
def test_a_token_gets_the_sum_of_its_slots_rows(
    tokens: int, hidden: int, active: int, weighted: bool, dtype: torch.dtype
) -> None:
    experts = 10
    dispatch = dispatch_slots(torch.randint(0, experts + 1, (tokens, active), device=DEVICE), experts)
    rows_SD = torch.randn(tokens * active, hidden, device=DEVICE).to(dtype)
    weights_NK = torch.rand(tokens, active, device=DEVICE) if weighted else None
    y_ND = combine(rows_SD, dispatch, weights_NK)
    assert y_ND.dtype == dtype
    torch.testing.assert_close(
        y_ND,
        plain_combine(rows_SD, dispatch, weights_NK).to(dtype),
        atol=1e-5,
        rtol=1e-5 if dtype == torch.float32 else 8e-3,
    )


def test_rows_of_dropped_slots_are_not_read() -> None:
    experts_NK = torch.tensor([[0, 2], [2, 2], [1, 0]], device=DEVICE)
    dispatch = dispatch_slots(experts_NK, experts=2)
    rows_SD = torch.ones(6, 16, device=DEVICE)
    rows_SD[3:] = torch.nan
    assert combine(rows_SD, dispatch).tolist() == [[1.0] * 16, [0.0] * 16, [2.0] * 16]
