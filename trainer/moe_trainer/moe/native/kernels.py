"""The loop over in-layer experts with passes in C between its products."""

import torch
from torch import Tensor

from moe_trainer.moe.dispatch import Dispatch
from moe_trainer.moe.looped import LoopedKernels
from moe_trainer.moe.native.library import library
from moe_trainer.moe.visits import Visit


class NativeKernels(LoopedKernels):
    """Like LoopedKernels; if no backward pass follows, the results have the same bits."""

    def __init__(self) -> None:
        self._library = library()

    def dispatch(self, experts_NK: Tensor, experts: int) -> Dispatch:
        """Order the slots by in-layer expert."""
        experts_NK = experts_NK.long().contiguous()
        slots_S, places_S = torch.empty(2, experts_NK.numel(), dtype=torch.int32)
        offsets = torch.zeros(experts + 2, dtype=torch.int32)
        written = (tensor.data_ptr() for tensor in (slots_S, places_S, offsets))
        self._library.order_slots(experts_NK.data_ptr(), experts_NK.numel(), experts, *written)
        return Dispatch(slots_S, places_S, offsets[: experts + 1], experts_NK.shape[1])

    def gather(self, x_ND: Tensor, dispatch: Dispatch, visit: Visit, rows_VD: Tensor) -> None:
        """Write the rows of x that a visit's slots use."""
        if not x_ND.is_contiguous():
            super().gather(x_ND, dispatch, visit, rows_VD)
            return
        slots = dispatch.slots_S.data_ptr() + visit.first * dispatch.slots_S.element_size()
        sizes = (*rows_VD.shape, dispatch.active)
        self._library.gather_rows(x_ND.data_ptr(), slots, rows_VD.data_ptr(), *sizes)

    def activate(self, gate_VF: Tensor, up_VF: Tensor, a_VF: Tensor, keep: bool) -> None:
        """Write the activation of a visit's rows."""
        if not keep:
            super().activate(gate_VF, up_VF, a_VF, keep)
            return
        self._library.swiglu(gate_VF.data_ptr(), up_VF.data_ptr(), a_VF.data_ptr(), a_VF.numel())

    def activate_backward(
        self,
        gate_VF: Tensor,
        up_VF: Tensor,
        da_VF: Tensor,
        weights_V1: Tensor,
        a_VF: Tensor,
        dh_V2F: Tensor,
        dweights_V: Tensor,
    ) -> None:
        """Write a and dh, both times the slots' weights, and the weights' gradients."""
        tensors = (gate_VF, up_VF, da_VF, weights_V1, a_VF, dh_V2F, dweights_V)
        self._library.swiglu_backward(*(tensor.data_ptr() for tensor in tensors), *a_VF.shape)
