"""What a backend computes, from what, and what it is asked whether it can compute."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from moe_trainer.moe.dispatch import Dispatch


@dataclass(frozen=True)
class Case:
    """The sizes, type and device of one call: all that the choice of a backend may depend on."""

    device: str  #: ``cpu``, ``cuda``, …
    dtype: torch.dtype
    tokens: int
    hidden: int
    inner: int
    experts: int
    active: int
    gradients: bool = True  #: Whether a backward pass will follow.
    capability: tuple[int, int] = (0, 0)  #: Compute capability of a CUDA device.


@dataclass(frozen=True)
class Inputs:
    """What the in-layer experts of one call compute with: N tokens, of which each has K slots."""

    x_ND: Tensor  #: The tokens.
    weights_NK: Tensor  #: The weight of each slot in its token's output.
    gate_up_E2FD: Tensor  #: The gates' weights above the ups', of each in-layer expert.
    down_EDF: Tensor
    dispatch: Dispatch  #: The S = N * K slots, ordered by in-layer expert.


class Gradients(NamedTuple):
    """The gradients of the loss by each input of the in-layer experts."""

    x_ND: Tensor
    weights_NK: Tensor
    gate_up_E2FD: Tensor
    down_EDF: Tensor


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Make a CUDA tensor's device the current one, on which kernels are launched; of no effect for other tensors."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


class Kernels(Protocol):
    """The in-layer experts' products on one kind of device.

    With a = silu(g) * u of the pre-activation h = [g, u] = W_gate_up x, and s a slot's weight:

        y_n    = sum over the slots of token n of  s * W_down a
        ds     = rowsum(a * (W_down^T dy))          so that neither a nor W_down a need be kept
        dh     = dSwiGLU(s * W_down^T dy)
        dW_down = sum dy (s a)^T     dW_gate_up = sum dh x^T     dx_n = sum over slots of W_gate_up^T dh

    Between the passes only x, h, the ordering and the weights are kept: 2ND + 4SF bytes in bf16 (Guo et
    al., "SonicMoE", 2025).
    """

    def dispatch(self, experts_NK: Tensor, experts: int) -> Dispatch:
        """Order the slots by in-layer expert."""
        ...

    def forward(self, inputs: Inputs, *, keep: bool, again: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return y_ND and, with ``keep``, the pre-activation h_S2F for the backward pass.

        ``again`` says that pre_activation() will be asked for h instead, so the products must be the ones that
        it computes. The 2SF numbers of h may be laid out as suits the backend: only its own backward pass reads
        them.
        """
        ...

    def pre_activation(self, inputs: Inputs) -> Tensor:
        """Compute h_S2F once more, with the same bits as in the forward pass: for recomputation."""
        ...

    def backward(self, inputs: Inputs, dy_ND: Tensor, h_S2F: Tensor) -> Gradients:
        """Return the gradients of all four inputs. Rows of h at places of dropped slots may hold anything."""
        ...
