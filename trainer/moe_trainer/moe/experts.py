"""The in-layer experts of a layer: SwiGLU banks, of which each token uses K.

    y_n = sum over the slots of token n of  weight * down(silu(gate(x_n)) * up(x_n))

A backend (backends.py) computes the products; one autograd function for all of them decides what is kept between the
passes.
"""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from moe_trainer.moe import backends
from moe_trainer.moe.backends import Backend
from moe_trainer.moe.dispatch import Dispatch
from moe_trainer.moe.kernels import Case, Inputs, Kernels, on_device_of

#: The types that in-layer experts compute in. A backend may support fewer, and then says so.
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class ExpertsFunction(Protocol):
    """A function that computes the in-layer experts of a layer: swiglu_experts, or the same over several processes."""

    def __call__(
        self,
        x_ND: Tensor,
        experts_NK: Tensor,
        weights_NK: Tensor,
        gate_up_E2FD: Tensor,
        down_EDF: Tensor,
        *,
        backend: Backend | None = None,
        recompute: bool = False,
    ) -> Tensor:
        """Return y_ND."""
        ...


def swiglu_experts(
    x_ND: Tensor,
    experts_NK: Tensor,
    weights_NK: Tensor,
    gate_up_E2FD: Tensor,
    down_EDF: Tensor,
    *,
    backend: Backend | None = None,
    recompute: bool = False,
) -> Tensor:
    """Return y_ND: the weighted outputs of each token's in-layer experts.

    ``experts_NK`` holds numbers below E, or E for a slot that was dropped. ``backend`` forces a backend; by
    default the best one that can run here is chosen. ``recompute`` keeps only x and computes the
    pre-activation again in the backward pass: 4SF bytes less in bf16, 4 of 18 SDF operations more
    (``reference`` keeps what autograd keeps, in either case).

    Raises ValueError if sizes or types do not fit together, or the backend cannot run here.
    """
    case = _check(x_ND, experts_NK, weights_NK, gate_up_E2FD, down_EDF)
    if backend == "reference":
        return reference_experts(x_ND, experts_NK, weights_NK, gate_up_E2FD, down_EDF)
    kernels = backends.kernels(backend or backends.choose(case), case)
    with on_device_of(x_ND):
        if not case.gradients:
            dispatch = kernels.dispatch(experts_NK, case.experts)
            return kernels.forward(Inputs(x_ND, weights_NK, gate_up_E2FD, down_EDF, dispatch), keep=False)[0]
        y_ND: Tensor = _Experts.apply(  # type: ignore[no-untyped-call]
            x_ND, weights_NK, gate_up_E2FD, down_EDF, experts_NK, kernels, recompute
        )
        return y_ND


class _Experts(torch.autograd.Function):
    """Keeps x, the pre-activation (unless it will be recomputed), the ordering and the weights for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        weights_NK: Tensor,
        gate_up_E2FD: Tensor,
        down_EDF: Tensor,
        experts_NK: Tensor,
        kernels: Kernels,
        recompute: bool,
    ) -> Tensor:
        dispatch = kernels.dispatch(experts_NK, gate_up_E2FD.shape[0])
        inputs = Inputs(x_ND, weights_NK, gate_up_E2FD, down_EDF, dispatch)
        y_ND, h_S2F = kernels.forward(inputs, keep=not recompute, again=recompute)
        ordering = (dispatch.slots_S, dispatch.places_S, dispatch.offsets_E1)
        ctx.save_for_backward(x_ND, weights_NK, gate_up_E2FD, down_EDF, h_S2F, *ordering)
        ctx.kernels, ctx.active = kernels, dispatch.active
        return y_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_ND: Tensor) -> tuple[Tensor | None, ...]:
        kernels: Kernels = ctx.kernels
        x_ND, weights_NK, gate_up_E2FD, down_EDF, h_S2F, slots_S, places_S, offsets_E1 = ctx.saved_tensors
        dispatch = Dispatch(slots_S, places_S, offsets_E1, ctx.active)
        inputs = Inputs(x_ND, weights_NK, gate_up_E2FD, down_EDF, dispatch)
        if h_S2F is None:
            h_S2F = kernels.pre_activation(inputs)
        gradients = kernels.backward(inputs, dy_ND.contiguous(), h_S2F)
        return (*gradients, None, None, None)


def _check(
    x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor, gate_up_E2FD: Tensor, down_EDF: Tensor
) -> Case:
    """Return the case of a call; raises ValueError with what does not fit, before anything is computed."""
    _check_weights(gate_up_E2FD, down_EDF)
    experts, twice, hidden = gate_up_E2FD.shape
    if x_ND.dim() != 2 or x_ND.shape[1] != hidden:
        raise ValueError(
            f"x has shape {list(x_ND.shape)}, but gate_up's hidden size is {hidden}: pass N x {hidden}"
        )
    if not x_ND.dtype == gate_up_E2FD.dtype == down_EDF.dtype:
        raise ValueError(
            f"x, gate_up and down must have one dtype, not {x_ND.dtype}, {gate_up_E2FD.dtype} and "
            f"{down_EDF.dtype}: convert x to that of the weights"
        )
    _check_slots(experts_NK, weights_NK, tokens=x_ND.shape[0], experts=experts)
    devices = [tensor.device for tensor in (x_ND, experts_NK, weights_NK, gate_up_E2FD, down_EDF)]
    if devices != [x_ND.device] * len(devices):
        raise ValueError(
            "x, experts, weights, gate_up and down must be on one device, not "
            f"{', '.join(map(str, devices))}: move them"
        )
    wanted = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (x_ND, weights_NK, gate_up_E2FD, down_EDF)
    )
    return Case(
        device=x_ND.device.type,
        dtype=x_ND.dtype,
        tokens=x_ND.shape[0],
        hidden=hidden,
        inner=twice // 2,
        experts=experts,
        active=experts_NK.shape[1],
        gradients=wanted,
        capability=torch.cuda.get_device_capability(x_ND.device) if x_ND.is_cuda else (0, 0),
    )


def _check_weights(gate_up_E2FD: Tensor, down_EDF: Tensor) -> None:
    if gate_up_E2FD.dim() != 3 or not gate_up_E2FD.numel() or gate_up_E2FD.shape[1] % 2:
        raise ValueError(
            f"gate_up has shape {list(gate_up_E2FD.shape)}, but must be E x 2F x D (gate over up), with no size 0"
        )
    experts, twice, hidden = gate_up_E2FD.shape
    if down_EDF.shape != (experts, hidden, twice // 2):
        raise ValueError(
            f"down has shape {list(down_EDF.shape)}, but with gate_up of shape {list(gate_up_E2FD.shape)} it must have "
            f"{[experts, hidden, twice // 2]}"
        )
    if gate_up_E2FD.dtype not in DTYPES:
        raise ValueError(
            f"gate_up is {gate_up_E2FD.dtype}, but in-layer experts compute in "
            f"{', '.join(map(str, DTYPES))}: convert the layer to one of them"
        )


def _check_slots(experts_NK: Tensor, weights_NK: Tensor, tokens: int, experts: int) -> None:
    if experts_NK.dim() != 2 or experts_NK.shape != weights_NK.shape or experts_NK.shape[0] != tokens:
        raise ValueError(
            f"experts {list(experts_NK.shape)} and weights {list(weights_NK.shape)} must both be "
            f"{tokens} tokens by K"
        )
    if not experts_NK.shape[
        1
    ]:  # more than E is no error: slots may be dropped, as those of a bank's base are
        raise ValueError(f"experts {list(experts_NK.shape)} gives a token no slot: K must be 1 or more")
    if experts_NK.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"experts has dtype {experts_NK.dtype}, but must hold numbers of in-layer experts: pass torch.int64"
        )
    if not weights_NK.is_floating_point():
        raise ValueError(
            f"weights has dtype {weights_NK.dtype}, but must be floating-point: pass torch.float32"
        )
    if tokens and experts_NK.device.type == "cpu":  # on a device, looking would mean waiting for it
        least, most = (int(bound) for bound in experts_NK.aminmax())
        if least < 0 or most > experts:
            raise ValueError(
                f"experts holds numbers from {least} to {most}, but must be 0 to {experts - 1}, or {experts} "
                "for a slot that was dropped"
            )


def reference_experts(
    x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor, gate_up_E2FD: Tensor, down_EDF: Tensor
) -> Tensor:
    """Return y_ND = sum over a token's slots of weight * down(silu(gate(x)) * up(x)); autograd does the rest."""
    y_ND = torch.zeros_like(x_ND)
    for expert in range(gate_up_E2FD.shape[0]):
        token_S, choice_S = torch.where(experts_NK == expert)
        gate_SF, up_SF = (x_ND[token_S] @ gate_up_E2FD[expert].T).chunk(2, dim=-1)
        out_SD = (F.silu(gate_SF) * up_SF) @ down_EDF[expert].T
        weight_S1 = weights_NK[token_S, choice_S, None].to(x_ND.dtype)
        y_ND = y_ND.index_add(0, token_S, weight_S1 * out_SD)
    return y_ND
