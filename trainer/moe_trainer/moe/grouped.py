"""Plain torch on any device: each in-layer expert multiplies one contiguous slice of the ordered slots."""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.moe.dispatch import Dispatch, dispatch_slots
from moe_trainer.moe.kernels import Gradients


class GroupedKernels:
    """The products by torch's own matrix product, one in-layer expert after the other."""

    def dispatch(self, experts_NK: Tensor, experts: int) -> Dispatch:
        """Order the slots by in-layer expert."""
        return dispatch_slots(experts_NK, experts)

    def forward(
        self,
        x_ND: Tensor,
        weights_NK: Tensor,
        gate_up_E2FD: Tensor,
        down_EDF: Tensor,
        dispatch: Dispatch,
        keep: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return y_ND and, if it is to be kept for the backward pass, the pre-activation h_S2F."""
        h_S2F = self.pre_activation(x_ND, gate_up_E2FD, dispatch)
        weights_S = weights_NK.flatten()[dispatch.slots_S].to(x_ND.dtype)
        gate_SF, up_SF = h_S2F.chunk(2, dim=-1)
        a_SF = F.silu(gate_SF) * up_SF * weights_S[:, None]
        y_ND = torch.zeros_like(x_ND)
        for expert, rows in enumerate(_slices(dispatch)):
            y_ND.index_add_(0, _tokens(dispatch)[rows], a_SF[rows] @ down_EDF[expert].T)
        return y_ND, h_S2F if keep else None

    def pre_activation(self, x_ND: Tensor, gate_up_E2FD: Tensor, dispatch: Dispatch) -> Tensor:
        """Return h_S2F again, the same bits as in the forward pass: for recomputation."""
        x_SD = x_ND[_tokens(dispatch)]
        h_S2F = x_ND.new_zeros(x_SD.shape[0], gate_up_E2FD.shape[1])
        for expert, rows in enumerate(_slices(dispatch)):
            torch.mm(x_SD[rows], gate_up_E2FD[expert].T, out=h_S2F[rows])
        return h_S2F

    def backward(
        self,
        dy_ND: Tensor,
        x_ND: Tensor,
        h_S2F: Tensor,
        weights_NK: Tensor,
        gate_up_E2FD: Tensor,
        down_EDF: Tensor,
        dispatch: Dispatch,
    ) -> Gradients:
        """Return the gradients of all four inputs."""
        tokens_S = _tokens(dispatch)
        dx_ND = torch.zeros_like(x_ND)
        dweights_S = torch.zeros_like(weights_NK).flatten()
        dgate_up_E2FD, ddown_EDF = torch.zeros_like(gate_up_E2FD), torch.zeros_like(down_EDF)
        for expert, rows in enumerate(_slices(dispatch)):
            slots = dispatch.slots_S[rows]
            weight_S1 = weights_NK.flatten()[slots, None].to(x_ND.dtype)
            gate_SF, up_SF = h_S2F[rows].chunk(2, dim=-1)
            sigmoid_SF = gate_SF.sigmoid()
            silu_SF = gate_SF * sigmoid_SF
            a_SF = silu_SF * up_SF
            dy_SD = dy_ND[tokens_S[rows]]
            da_SF = dy_SD @ down_EDF[expert]
            dweights_S[slots] = (a_SF * da_SF).sum(dim=1).to(dweights_S.dtype)
            torch.mm(dy_SD.T, a_SF * weight_S1, out=ddown_EDF[expert])
            da_SF = da_SF * weight_S1
            dgate_SF = da_SF * up_SF * (sigmoid_SF + silu_SF * (1 - sigmoid_SF))
            dh_S2F = torch.cat((dgate_SF, da_SF * silu_SF), dim=1)
            torch.mm(dh_S2F.T, x_ND[tokens_S[rows]], out=dgate_up_E2FD[expert])
            dx_ND.index_add_(0, tokens_S[rows], dh_S2F @ gate_up_E2FD[expert])
        return Gradients(dx_ND, dweights_S.view_as(weights_NK), dgate_up_E2FD, ddown_EDF)


def _tokens(dispatch: Dispatch) -> Tensor:
    return dispatch.slots_S // dispatch.active


def _slices(dispatch: Dispatch) -> list[slice]:
    """Return the places of each in-layer expert."""
    offsets = dispatch.offsets_E1.tolist()
    return [slice(first, last) for first, last in pairwise(offsets)]
