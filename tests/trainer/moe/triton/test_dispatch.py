import pytest
import torch

from moe_trainer.moe.dispatch import dispatch_slots as plain_dispatch_slots
from moe_trainer.moe.triton.dispatch import TILE, dispatch_slots

from .conftest import DEVICE, needs_gpu


def assert_as_plain(experts_NK: torch.Tensor, experts: int) -> None:
    found = dispatch_slots(experts_NK.to(DEVICE), experts)
    expected = plain_dispatch_slots(experts_NK, experts)
    for name in ("slots_S", "places_S", "offsets_E1"):
        assert getattr(found, name).dtype == torch.int32
        assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name
    assert found.active == expected.active


@pytest.mark.parametrize("active", range(1, 9))
@pytest.mark.parametrize(("tokens", "experts"), [(1, 8), (37, 11), (TILE // 2 + 3, 64)])
def test_the_order_is_that_of_a_stable_sort(tokens: int, experts: int, active: int) -> None:
    assert_as_plain(torch.rand(tokens, experts).topk(active).indices, experts)


def test_dropped_slots_come_last_in_their_order() -> None:
    assert_as_plain(torch.randint(0, 6, (300, 3)), experts=5)


def test_all_slots_of_one_in_layer_expert_keep_their_order() -> None:
    assert_as_plain(torch.full((TILE + 1, 2), 6), experts=7)


def test_all_slots_may_be_dropped() -> None:
    assert_as_plain(torch.full((5, 2), 3), experts=3)


def test_no_tokens_make_an_empty_order() -> None:
    assert_as_plain(torch.empty(0, 2, dtype=torch.int64), experts=3)


@pytest.mark.parametrize("experts", [1, 129, 520])
def test_the_number_of_in_layer_experts_is_free(experts: int) -> None:
    assert_as_plain(torch.randint(0, experts + 1, (TILE + 7, 2)), experts)


def test_the_prefix_over_tiles_goes_on_from_step_to_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_trainer.moe.triton.dispatch.PREFIX", 2)
    assert_as_plain(torch.randint(0, 4, (5 * TILE + 1, 1)), experts=3)


@needs_gpu
@pytest.mark.parametrize("tokens", [64, 4096])
def test_a_cuda_graph_orders_what_it_is_given_later(tokens: int) -> None:
    experts_NK = torch.zeros(tokens, 8, dtype=torch.int64, device=DEVICE)
    dispatch_slots(experts_NK, 128)  # Compiled before the capture.
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = dispatch_slots(experts_NK, 128)
    experts_NK.copy_(torch.rand(tokens, 128).topk(8).indices)
    graph.replay()
    expected = plain_dispatch_slots(experts_NK.cpu(), 128)
    assert captured.slots_S.tolist() == expected.slots_S.tolist()
    assert captured.offsets_E1.tolist() == expected.offsets_E1.tolist()
