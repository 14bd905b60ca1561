"""The in-layer experts by torch's grouped matrix product: one call for all of them, for GPUs.

Nothing here waits for the device: where an expert's rows begin is read on the device, and every size follows from the
arguments. Dropped slots come last in the ordering, beyond the last offset. A grouped product does not write their rows,
so they contain anything until they are set to 0.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.moe.dispatch import Dispatch, combine, dispatch_slots
from moe_trainer.moe.kernels import Case, Gradients, Inputs

#: Rows must be multiples of this many 2-byte numbers, since the product reads 16 bytes at once.
ALIGNMENT = 8
#: torch's product takes fewer groups than this number.
GROUPS = 1024


def refusal(case: Case) -> str | None:
    """Return why torch's grouped product cannot compute a case without the host, or None if it can."""
    if not hasattr(F, "grouped_mm"):
        return f"torch {torch.__version__} has no grouped product: 2.10 and later have"
    if case.device != "cuda" or case.capability < (8, 0):
        return "the grouped product needs a CUDA device of compute capability 8.0 or more"
    if case.dtype != torch.bfloat16:
        return f"the grouped product computes in torch.bfloat16, not {case.dtype}"
    if case.hidden % ALIGNMENT or case.inner % ALIGNMENT:
        return f"the grouped product needs a hidden size and an inner width that are multiples of {ALIGNMENT}"
    if case.experts >= GROUPS:
        return f"the grouped product needs fewer than {GROUPS} in-layer experts"
    if not case.tokens:
        return "the grouped product needs a token"
    return None


class GroupedKernels:
    """The products by torch's grouped matrix product."""

    def dispatch(self, experts_NK: Tensor, experts: int) -> Dispatch:
        """Order the slots by in-layer expert."""
        return dispatch_slots(experts_NK, experts)

    def forward(self, inputs: Inputs, *, keep: bool, again: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return y_ND and, if it is to be kept for the backward pass, the pre-activation h_S2F."""
        dispatch = inputs.dispatch
        h_S2F = self.pre_activation(inputs)
        gate_SF, up_SF = h_S2F.chunk(2, dim=1)
        rows_SD = _product(F.silu(gate_SF).mul_(up_SF), inputs.down_EDF.mT, dispatch)
        return combine(_clear(rows_SD, dispatch), inputs.weights_NK, dispatch), h_S2F if keep else None

    def pre_activation(self, inputs: Inputs) -> Tensor:
        """Return h_S2F again, the same bits as in the forward pass: for recomputation."""
        return _product(inputs.x_ND[_tokens(inputs.dispatch)], inputs.gate_up_E2FD.mT, inputs.dispatch)

    def backward(self, inputs: Inputs, dy_ND: Tensor, h_S2F: Tensor) -> Gradients:
        """Return the gradients of all four inputs."""
        x_ND, weights_NK, dispatch = inputs.x_ND, inputs.weights_NK, inputs.dispatch
        tokens_S = _tokens(dispatch)
        weights_S1 = weights_NK.flatten()[dispatch.slots_S, None].to(x_ND.dtype)
        dy_SD = dy_ND[tokens_S]
        da_SF = _product(dy_SD, inputs.down_EDF, dispatch)
        a_SF, dh_S2F = _swiglu_backward(h_S2F, da_SF)
        dweights_S1 = da_SF.mul_(a_SF).sum(dim=1, keepdim=True, dtype=weights_NK.dtype)
        dweights_NK = _clear(dweights_S1, dispatch)[dispatch.places_S].view_as(weights_NK)
        ddown_EDF = _product(dy_SD.mul_(weights_S1).T, a_SF, dispatch)
        dgate_up_E2FD = _product(dh_S2F.T, x_ND[tokens_S].mul_(weights_S1), dispatch)
        dx_SD = _clear(_product(dh_S2F, inputs.gate_up_E2FD, dispatch), dispatch)
        return Gradients(combine(dx_SD, weights_NK, dispatch), dweights_NK, dgate_up_E2FD, ddown_EDF)


def _product(left: Tensor, right: Tensor, dispatch: Dispatch) -> Tensor:
    """Return each expert's rows times its matrix; if both arguments are rows, left^T right for each expert."""
    return F.grouped_mm(left, right, offs=dispatch.offsets_E1[1:])


def _swiglu_backward(h_S2F: Tensor, da_SF: Tensor) -> tuple[Tensor, Tensor]:
    """Return a, and dh without the slots' weights."""
    gate_SF, up_SF = h_S2F.chunk(2, dim=1)
    silu_SF = F.silu(gate_SF)
    dgate_SF = torch.ops.aten.silu_backward(da_SF * up_SF, gate_SF)
    return silu_SF * up_SF, torch.cat((dgate_SF, da_SF * silu_SF), dim=1)


def _clear(rows: Tensor, dispatch: Dispatch) -> Tensor:
    """Set the rows of dropped slots to 0, in place."""
    places_S = torch.arange(len(rows), dtype=torch.int32, device=rows.device)
    return rows.masked_fill_((places_S >= dispatch.offsets_E1[-1])[:, None], 0)


def _tokens(dispatch: Dispatch) -> Tensor:
    """Return the token at each place."""
    return dispatch.slots_S // dispatch.active
