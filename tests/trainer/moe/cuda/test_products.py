"""Each kernel's source, emulated, against its plain product: indices, swizzles, phases, tails, empty experts.

One tile is 128 x 256, so even the smallest problem has a thousand times more work than a unit test's usual one:
the sizes here are what it takes to have two tiles across, two down, more steps than stages, and tails.
"""

import ctypes
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.moe.cuda.products import d_hidden, down, up
from moe_trainer.moe.dispatch import Dispatch, dispatch_slots

from .emulator import Emulator, needs_compiler

pytestmark = needs_compiler

#: Slots of each in-layer expert, and dropped ones at the end.
COUNTS = {
    "tails and an empty expert": ([5, 0, 130], 3),
    "all to one": ([0, 260], 0),
    "all dropped": ([0, 0], 7),
}


def dispatch_of(counts: list[int], dropped: int, active: int = 2) -> Dispatch:
    """Return the ordering of slots that chose so, in a random order of tokens."""
    experts = len(counts)
    chosen = torch.cat([torch.full((n,), e) for e, n in enumerate([*counts, dropped])])
    padding = -len(chosen) % active
    chosen = torch.cat([chosen, torch.full((padding,), experts)])
    generator = torch.Generator().manual_seed(0)
    return dispatch_slots(chosen[torch.randperm(len(chosen), generator=generator)].view(-1, active), experts)


def normal(*shape: int, seed: int = 1, scale: float = 1.0) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale).bfloat16()


def expert_rows(dispatch: Dispatch) -> list[slice]:
    offsets = dispatch.offsets_E1.tolist()
    return [slice(*bounds) for bounds in pairwise(offsets)]


@pytest.fixture(
    params=[(1, False), (1, True), (2, False), (2, True)], ids=lambda p: f"cluster{p[0]}-late{p[1]}"
)
def launch(request: pytest.FixtureRequest, libraries: dict[int, ctypes.CDLL]) -> Emulator:
    cluster, late = request.param
    return Emulator(libraries, cluster, late=late)


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_up_gathers_multiplies_and_activates(counts: tuple[list[int], int], launch: Emulator) -> None:
    dispatch, hidden, inner = dispatch_of(*counts), 320, 192
    x_ND = normal(dispatch.slots_S.numel() // 2, hidden)
    gate_up_E2FD = normal(dispatch.experts, 2 * inner, hidden, seed=2, scale=hidden**-0.5)

    h_S2F, a_SF = up(x_ND, gate_up_E2FD, dispatch, launch, keep=True, activate=True)

    assert h_S2F is not None and a_SF is not None
    for expert, rows in enumerate(expert_rows(dispatch)):
        expected = x_ND[dispatch.slots_S[rows] // 2].float() @ gate_up_E2FD[expert].float().T
        gate, ups = expected.chunk(2, dim=1)
        torch.testing.assert_close(h_S2F[rows].float(), expected, atol=1e-3, rtol=5e-3)
        torch.testing.assert_close(a_SF[rows].float(), F.silu(gate) * ups, atol=1e-3, rtol=5e-3)


def test_up_gives_the_same_bits_when_it_only_computes_the_pre_activation_again(launch: Emulator) -> None:
    dispatch = dispatch_of([5, 0, 130], 3)
    x_ND = normal(dispatch.slots_S.numel() // 2, 128)
    gate_up_E2FD = normal(dispatch.experts, 256, 128, seed=2)

    h_S2F, _ = up(x_ND, gate_up_E2FD, dispatch, launch, keep=True, activate=True)
    again_S2F, nothing = up(x_ND, gate_up_E2FD, dispatch, launch, keep=True, activate=False)

    assert h_S2F is not None and again_S2F is not None and nothing is None
    kept = int(dispatch.offsets_E1[-1])
    assert torch.equal(h_S2F[:kept], again_S2F[:kept])


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_down_multiplies_the_rows_of_each_expert(counts: tuple[list[int], int], launch: Emulator) -> None:
    dispatch, hidden, inner = dispatch_of(*counts), 320, 192
    a_SF = normal(dispatch.slots_S.numel(), inner)
    down_EDF = normal(dispatch.experts, hidden, inner, seed=2, scale=inner**-0.5)

    rows_SD = down(a_SF, down_EDF, dispatch, launch)

    for expert, rows in enumerate(expert_rows(dispatch)):
        expected = a_SF[rows].float() @ down_EDF[expert].float().T
        torch.testing.assert_close(rows_SD[rows].float(), expected, atol=1e-3, rtol=5e-3)


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_d_hidden_differentiates_by_pre_activation_and_weight(
    counts: tuple[list[int], int], launch: Emulator
) -> None:
    dispatch, hidden, inner = dispatch_of(*counts), 192, 320
    slots = dispatch.slots_S.numel()
    dy_ND, h_S2F = normal(slots // 2, hidden), normal(slots, 2 * inner, seed=3)
    weights_NK = torch.rand(slots // 2, 2, generator=torch.Generator().manual_seed(4))
    down_EDF = normal(dispatch.experts, hidden, inner, seed=2, scale=hidden**-0.5)

    dh_S2F, weighted_SF, dweights_NK = d_hidden(dy_ND, h_S2F, weights_NK, down_EDF, dispatch, launch)

    h = h_S2F.float().requires_grad_()
    weights = weights_NK.clone().requires_grad_()
    for expert, rows in enumerate(expert_rows(dispatch)):
        gate, ups = h[rows].chunk(2, dim=1)
        weight = weights.flatten()[dispatch.slots_S[rows], None]
        activated = F.silu(gate) * ups * weight
        torch.testing.assert_close(weighted_SF[rows].float(), activated, atol=1e-3, rtol=5e-3)
        dy = dy_ND[dispatch.slots_S[rows] // 2].float()
        (activated @ down_EDF[expert].float().T * dy).sum().backward()
    kept = int(dispatch.offsets_E1[-1])
    expected = torch.zeros_like(h) if h.grad is None else h.grad
    torch.testing.assert_close(dh_S2F[:kept].float(), expected[:kept], atol=2e-3, rtol=5e-3)
    expected = torch.zeros_like(weights) if weights.grad is None else weights.grad
    torch.testing.assert_close(dweights_NK, expected, atol=1e-3, rtol=1e-4)
