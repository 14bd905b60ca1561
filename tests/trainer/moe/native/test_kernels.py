"""The passes in C: output and every gradient beside the reference, and what they do at the ends of their range."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.moe.dispatch import dispatch_slots
from moe_trainer.moe.experts import swiglu_experts
from moe_trainer.moe.native.kernels import NativeKernels
from moe_trainer.moe.native.library import unavailable

from ..conftest import ROUTINGS, Batch, random_batch

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=f"no C library here: {unavailable()}")

#: ‖error‖ / ‖reference in fp64‖ of the output and of each gradient.
TOLERANCE = 1e-6


def assert_equals_reference(batch: Batch, recompute: bool = False) -> None:
    expected = batch.run("reference")
    found = batch.to(torch.float32).run("native", recompute)
    for name, tensor in expected.items():
        error = (found[name].double() - tensor).norm() / tensor.norm()
        assert error < TOLERANCE, f"{name}: {error:.2e}"


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("active", [1, 2, 5])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_output_and_every_gradient_are_those_of_the_reference(
    routing: str, active: int, recompute: bool
) -> None:
    assert_equals_reference(
        ROUTINGS[routing](random_batch(tokens=53, hidden=24, inner=19, active=active)), recompute
    )


def test_eight_of_many_in_layer_experts() -> None:
    assert_equals_reference(random_batch(tokens=700, hidden=32, inner=16, experts=13, active=8))


def test_recomputation_changes_no_bit() -> None:
    batch = random_batch(tokens=700, hidden=32, inner=48).to(torch.float32)
    kept, again = batch.run("native"), batch.run("native", recompute=True)
    assert all(torch.equal(again[name], tensor) for name, tensor in kept.items())


def test_without_a_backward_pass_the_bits_are_those_of_torchs_passes() -> None:
    batch = random_batch(tokens=600, hidden=32, inner=48).to(torch.float32)
    arguments = (batch.x_ND, batch.experts_NK, batch.weights_NK, batch.gate_up_E2FD, batch.down_EDF)
    plain, native = (swiglu_experts(*arguments, backend=name) for name in ("torch", "native"))  # type: ignore[arg-type]
    assert torch.equal(plain, native)


def test_weights_of_slots_may_be_wider() -> None:
    batch = random_batch().to(torch.float32)
    wide = Batch(
        batch.x_ND,
        batch.experts_NK,
        batch.weights_NK.double(),
        batch.gate_up_E2FD,
        batch.down_EDF,
        batch.dy_ND,
    )
    for name, tensor in batch.run("native").items():
        torch.testing.assert_close(wide.run("native")[name].float(), tensor)


def passes(gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the activation of rows, and dh for a gradient of 1 and weights of 1."""
    kernels, rows = NativeKernels(), gate[:, None].contiguous()
    a, dh, ones = torch.empty_like(rows), torch.empty(len(gate), 2), torch.ones_like(rows)
    kernels.activate(rows, up[:, None].contiguous(), a, keep=True)
    kernels.activate_backward(
        rows, up[:, None].contiguous(), ones.clone(), ones, torch.empty_like(a), dh, torch.empty(len(gate))
    )
    return a[:, 0], dh


def test_activation_and_gradient_are_right_to_the_ends_of_the_range() -> None:
    gate = torch.cat(
        (torch.linspace(-200, 200, 20001), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 3e38, -3e38]))
    )
    up = torch.full_like(gate, 0.5)
    wide = gate.double().requires_grad_()
    expected = F.silu(wide) * 0.5
    (slope,) = torch.autograd.grad(expected.sum(), wide)
    a, dh = passes(gate, up)
    # Below -60 the true values are nothing beside any other number of a network.
    inside = gate > -3e37
    torch.testing.assert_close(a[inside].double(), expected.detach()[inside], rtol=1e-6, atol=1e-20)
    torch.testing.assert_close(dh[inside, 0].double(), slope[inside], rtol=1e-5, atol=1e-8)
    assert a.isfinite().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(value: float) -> None:
    a, dh = passes(torch.tensor([value, 1.0]), torch.tensor([1.0, value]))
    assert not a.isfinite().any() and not dh.isfinite().all(dim=1).any()


@pytest.mark.parametrize("tokens", [0, 1, 61])
def test_slots_are_ordered_as_in_torch(tokens: int) -> None:
    chosen_NK = torch.randint(0, 6, (tokens, 3), generator=torch.Generator().manual_seed(1))
    found, expected = NativeKernels().dispatch(chosen_NK, 5), dispatch_slots(chosen_NK, 5)
    for name in ("slots_S", "places_S", "offsets_E1"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert (found.experts, found.active) == (5, 3)
