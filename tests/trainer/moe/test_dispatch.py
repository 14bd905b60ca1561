"""The ordering of slots by in-layer expert: its invariants, and the sum over a token's slots."""

import pytest
import torch

from moe_trainer.moe.dispatch import combine, dispatch_slots

from .conftest import ROUTINGS, random_batch


@pytest.mark.parametrize("routing", ROUTINGS)
def test_the_ordering_is_a_stable_permutation_by_in_layer_expert(routing: str) -> None:
    experts_NK = ROUTINGS[routing](random_batch(tokens=61, active=3)).experts_NK
    found = dispatch_slots(experts_NK, experts=5)
    chosen_S = experts_NK.flatten()
    expected = sorted(range(chosen_S.numel()), key=lambda slot: int(chosen_S[slot]))
    assert found.slots_S.tolist() == expected
    assert found.slots_S[found.places_S].tolist() == list(range(chosen_S.numel()))
    assert found.offsets_E1.tolist() == [int((chosen_S < expert).sum()) for expert in range(6)]
    assert (found.experts, found.active) == (5, 3)


def test_the_ordering_is_kept_in_four_bytes_a_number() -> None:
    found = dispatch_slots(random_batch().experts_NK, experts=5)
    assert {found.slots_S.dtype, found.places_S.dtype, found.offsets_E1.dtype} == {torch.int32}


@pytest.mark.parametrize("tokens", [0, 1])
def test_in_layer_experts_without_slots_own_no_places(tokens: int) -> None:
    found = dispatch_slots(torch.full((tokens, 2), 3), experts=5)
    assert found.offsets_E1.tolist() == [0, 0, 0, 0, 2 * tokens, 2 * tokens]


def test_a_token_gets_the_weighted_sum_of_its_rows() -> None:
    batch = random_batch(tokens=7, active=3)
    dispatch = dispatch_slots(batch.experts_NK, experts=5)
    rows_SD = torch.randn(21, 4, dtype=torch.float64)
    expected = torch.stack(
        [
            sum(batch.weights_NK[token, k] * rows_SD[dispatch.places_S[3 * token + k]] for k in range(3))
            for token in range(7)
        ]
    )
    torch.testing.assert_close(combine(rows_SD, batch.weights_NK, dispatch), expected)
