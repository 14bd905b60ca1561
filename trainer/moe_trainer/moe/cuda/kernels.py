"""CudaKernels: up, down and d_hidden in CUDA C++, everything else in Triton."""

from torch import Tensor

from moe_trainer.moe.cuda.launch import Launch, launch_on_gpu
from moe_trainer.moe.cuda.products import d_hidden, dense, down, up
from moe_trainer.moe.dispatch import Dispatch
from moe_trainer.moe.kernels import Gradients, Inputs
from moe_trainer.moe.triton.combine import combine
from moe_trainer.moe.triton.d_weights import d_down, d_gate_up
from moe_trainer.moe.triton.dispatch import dispatch_slots
from moe_trainer.moe.triton.product import product
from moe_trainer.moe.triton.tiles import Schedule


class CudaKernels:
    """The products on Hopper, in bf16 with sums in fp32; sums are always added in the same order."""

    def __init__(self, launch: Launch = launch_on_gpu) -> None:
        self._launch = launch

    def dispatch(self, experts_NK: Tensor, experts: int) -> Dispatch:
        """Order the slots by in-layer expert."""
        return dispatch_slots(experts_NK, experts)

    def forward(self, inputs: Inputs, *, keep: bool, again: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return y_ND and, if it is to be kept for the backward pass, the pre-activation h_S2F."""
        dispatch = inputs.dispatch
        h_S2F, a_SF = up(inputs.x_ND, inputs.gate_up_E2FD, dispatch, self._launch, keep=keep, activate=True)
        assert a_SF is not None
        rows_SD = down(a_SF, inputs.down_EDF, dispatch, self._launch)
        return combine(rows_SD, dispatch, inputs.weights_NK.contiguous()), h_S2F

    def pre_activation(self, inputs: Inputs) -> Tensor:
        """Compute h_S2F again, with the same bits as in the forward pass: the same kernel adds in the same order."""
        x_ND, gate_up_E2FD = inputs.x_ND, inputs.gate_up_E2FD
        h_S2F, _ = up(x_ND, gate_up_E2FD, inputs.dispatch, self._launch, keep=True, activate=False)
        assert h_S2F is not None
        return h_S2F

    def backward(self, inputs: Inputs, dy_ND: Tensor, h_S2F: Tensor) -> Gradients:
        """Return the gradients of all four inputs. Rows of h at places of dropped slots may hold anything."""
        dispatch, dy_ND = inputs.dispatch, dense(dy_ND)
        schedule = Schedule(dispatch)
        dh_S2F, weighted_SF, dweights_NK = d_hidden(
            dy_ND, h_S2F, inputs.weights_NK, inputs.down_EDF, dispatch, self._launch
        )
        ddown_EDF = d_down(dy_ND, weighted_SF, schedule)
        del weighted_SF
        dgate_up_E2FD = d_gate_up(dh_S2F, dense(inputs.x_ND), schedule)
        rows_SD = product(dh_S2F, dense(inputs.gate_up_E2FD), schedule, transposed=True)
        return Gradients(combine(rows_SD, dispatch), dweights_NK, dgate_up_E2FD, ddown_EDF)
