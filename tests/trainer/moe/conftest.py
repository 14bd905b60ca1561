"""One batch for the in-layer experts, in the routings that break kernels."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from moe_trainer.moe.backends import Backend
from moe_trainer.moe.experts import swiglu_experts


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Batch:
    """The inputs of the in-layer experts, and the gradient that comes back."""

    x_ND: Tensor
    experts_NK: Tensor
    weights_NK: Tensor
    gate_up_E2FD: Tensor
    down_EDF: Tensor
    dy_ND: Tensor

    def to(self, dtype: torch.dtype, device: str = "cpu") -> "Batch":
        """Return the batch in another type; the weights stay at fp32 or above."""
        wide = dtype if dtype == torch.float64 else torch.float32
        return Batch(
            self.x_ND.to(device, dtype),
            self.experts_NK.to(device),
            self.weights_NK.to(device, wide),
            self.gate_up_E2FD.to(device, dtype),
            self.down_EDF.to(device, dtype),
            self.dy_ND.to(device, dtype),
        )

    def run(self, backend: Backend, recompute: bool = False) -> dict[str, Tensor]:
        """Return the output and every gradient."""
        inputs = {
            name: getattr(self, name).detach().clone().requires_grad_()
            for name in ("x_ND", "weights_NK", "gate_up_E2FD", "down_EDF")
        }
        y_ND = swiglu_experts(
            inputs["x_ND"],
            self.experts_NK,
            inputs["weights_NK"],
            inputs["gate_up_E2FD"],
            inputs["down_EDF"],
            backend=backend,
            recompute=recompute,
        )
        y_ND.backward(self.dy_ND)  # type: ignore[no-untyped-call]
        return {"y_ND": y_ND.detach()} | {name: tensor.grad for name, tensor in inputs.items()}  # type: ignore[misc]


def random_batch(
    tokens: int = 37, hidden: int = 16, inner: int = 8, experts: int = 5, active: int = 2, seed: int = 0
) -> Batch:
    """Return a batch whose tokens choose at random."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    scores_NE = torch.rand(tokens, experts, dtype=torch.float64, generator=generator)
    weights_NK, experts_NK = scores_NE.topk(active)
    return Batch(
        normal(tokens, hidden),
        experts_NK,
        weights_NK,
        normal(experts, 2 * inner, hidden) / hidden**0.5,
        normal(experts, hidden, inner) / inner**0.5,
        normal(tokens, hidden),
    )


def all_to_one(batch: Batch) -> Batch:
    """Send every first choice to the last in-layer expert; the others' choices go round the rest."""
    experts = batch.gate_up_E2FD.shape[0]
    experts_NK = (torch.arange(batch.experts_NK.numel()) % max(1, experts - 1)).view_as(batch.experts_NK)
    experts_NK = experts_NK.sort(dim=1).values
    experts_NK[:, 0] = experts - 1
    return replace(batch, experts_NK=experts_NK)


def some_empty(batch: Batch) -> Batch:
    """Leave all but the first K in-layer experts without a slot."""
    experts_NK = torch.arange(batch.experts_NK.shape[1]).expand_as(batch.experts_NK).clone()
    return replace(batch, experts_NK=experts_NK)


def some_dropped(batch: Batch) -> Batch:
    """Drop every third slot."""
    dropped = (torch.arange(batch.experts_NK.numel()) % 3 == 0).view_as(batch.experts_NK)
    return replace(batch, experts_NK=batch.experts_NK.masked_fill(dropped, batch.gate_up_E2FD.shape[0]))


#: Every routing that a backend is compared with the reference on.
ROUTINGS = {
    "even": lambda batch: batch,
    "all to one": all_to_one,
    "some empty": some_empty,
    "some dropped": some_dropped,
}
