"""The in-layer experts' products in Triton: the steps of both passes, in order."""

from dataclasses import dataclass

from torch import Tensor

from moe_trainer.moe.dispatch import Dispatch
from moe_trainer.moe.kernels import Gradients, Inputs
from moe_trainer.moe.triton import d_hidden, d_weights, product, up
from moe_trainer.moe.triton.combine import combine
from moe_trainer.moe.triton.dispatch import dispatch_slots
from moe_trainer.moe.triton.skinny import MOST_TOKENS, skinny_forward
from moe_trainer.moe.triton.tiles import Schedule, Tile


@dataclass(frozen=True)
class Tiles:
    """The tiles that each kernel may use; if there are several, they are timed and the fastest is used."""

    up: tuple[Tile, ...] = up.TILES
    product: tuple[Tile, ...] = product.TILES
    d_hidden: tuple[Tile, ...] = d_hidden.TILES
    d_weights: tuple[Tile, ...] = d_weights.TILES


class TritonKernels:
    """The products as Triton kernels.

    Nothing waits for the host, and every size follows from the shapes of the arguments, so both passes can be captured
    in a CUDA graph. The first call with new sizes times each kernel's tiles (tiles.py), so run it once before capturing.
    Nothing is added atomically: the same inputs and tiles give the same bits. Which tiles those are is found by the
    clock, in each process; with ``torch.use_deterministic_algorithms(True)`` they follow from nothing but the kernel.
    """

    def __init__(self, tiles: Tiles | None = None) -> None:
        self.tiles = tiles or Tiles()

    def dispatch(self, experts_NK: Tensor, experts: int) -> Dispatch:
        """Order the slots by in-layer expert."""
        return dispatch_slots(experts_NK, experts)

    def forward(self, inputs: Inputs, *, keep: bool, again: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return y_ND and, if it is to be kept for the backward pass, the pre-activation h_S2F."""
        x_ND, weights_NK, dispatch = inputs.x_ND, inputs.weights_NK.contiguous(), inputs.dispatch
        gate_up_E2FD, down_EDF = _dense(inputs.gate_up_E2FD), _dense(inputs.down_EDF)
        if not (keep or again) and x_ND.shape[0] <= MOST_TOKENS:
            return skinny_forward(_dense(x_ND), weights_NK, gate_up_E2FD, down_EDF, dispatch), None
        schedule, slots = Schedule(dispatch), dispatch.slots_S.numel()
        h_S2F = x_ND.new_empty(slots, gate_up_E2FD.shape[1]) if keep else None
        a_SF = x_ND.new_empty(slots, down_EDF.shape[2])
        up.up(_dense(x_ND), gate_up_E2FD, schedule, h_S2F, a_SF, self.tiles.up)
        rows_SD = product.product(a_SF, down_EDF, schedule, self.tiles.product)
        return combine(rows_SD, dispatch, weights_NK), h_S2F

    def pre_activation(self, inputs: Inputs) -> Tensor:
        """Compute h_S2F again, with the same bits as in a forward pass that keeps it: for recomputation."""
        x_ND, gate_up_E2FD, dispatch = _dense(inputs.x_ND), _dense(inputs.gate_up_E2FD), inputs.dispatch
        h_S2F = x_ND.new_empty(dispatch.slots_S.numel(), gate_up_E2FD.shape[1])
        up.up(x_ND, gate_up_E2FD, Schedule(dispatch), h_S2F, None, self.tiles.up)
        return h_S2F

    def backward(self, inputs: Inputs, dy_ND: Tensor, h_S2F: Tensor) -> Gradients:
        """Return the gradients of all four inputs. Rows of h at places of dropped slots may hold anything."""
        dispatch, tiles, dy_ND = inputs.dispatch, self.tiles, _dense(dy_ND)
        schedule = Schedule(dispatch)
        dh_S2F, sa_SF, dweights_NK = d_hidden.d_hidden(
            dy_ND, h_S2F, inputs.weights_NK.contiguous(), _dense(inputs.down_EDF), schedule, tiles.d_hidden
        )
        ddown_EDF = d_weights.d_down(dy_ND, sa_SF, schedule, tiles.d_weights)
        del sa_SF  # its memory serves the rows below
        # From here on the gradients of gate_up and of x are independent: a second stream could be used.
        dgate_up_E2FD = d_weights.d_gate_up(dh_S2F, _dense(inputs.x_ND), schedule, tiles.d_weights)
        rows_SD = product.product(
            dh_S2F, _dense(inputs.gate_up_E2FD), schedule, tiles.product, transposed=True
        )
        return Gradients(combine(rows_SD, dispatch), dweights_NK, dgate_up_E2FD, ddown_EDF)


def _dense(tensor: Tensor) -> Tensor:
    """Return the tensor as the copy engine needs it: contiguous, and aligned to 16 bytes."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()
