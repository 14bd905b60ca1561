import pytest
import torch

from moe_trainer.moe.experts import swiglu_experts

from .conftest import ROUTINGS, random_batch


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("active", [1, 2, 5])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_the_torch_backend_computes_what_the_reference_does_with_every_gradient(
    routing: str, active: int, recompute: bool
) -> None:
    batch = ROUTINGS[routing](random_batch(active=active))
    expected, found = batch.run("reference"), batch.run("torch", recompute)
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, atol=1e-12, rtol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_gradients_are_those_of_finite_differences() -> None:
    batch = random_batch(tokens=5, hidden=4, inner=3, experts=4)
    inputs = [t.requires_grad_() for t in (batch.x_ND, batch.weights_NK, batch.gate_up_E2FD, batch.down_EDF)]

    def function(x: torch.Tensor, w: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        return swiglu_experts(x, batch.experts_NK, w, up, down, backend="torch")

    assert torch.autograd.gradcheck(function, inputs)
