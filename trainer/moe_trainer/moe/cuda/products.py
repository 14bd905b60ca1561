"""The three products as functions of tensors: shapes, tensor maps, and each kernel's arguments."""

import torch
from torch import Tensor

from moe_trainer.moe.cuda.compile import Kernel, KernelName
from moe_trainer.moe.cuda.launch import Launch, TensorMap
from moe_trainer.moe.dispatch import Dispatch

ROWS, COLUMNS, DEPTH = 128, 256, 64  # of a tile: kRows, kColumns and kDepth in the sources

#: Smallest average number of rows per in-layer expert at which two blocks share the weights they read. A pair of
#: blocks wastes up to 255 rows at an expert's end instead of 127. Chosen by reasoning, not measured on a GPU.
PAIRED_FROM = 1024


def up(
    x_ND: Tensor, gate_up_E2FD: Tensor, dispatch: Dispatch, launch: Launch, *, keep: bool, activate: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return h_S2F = W_gate_up x if ``keep``, and a_SF = silu(g) * u if ``activate``.

    Rows at places of dropped slots contain anything.
    """
    x_ND, gate_up_E2FD = dense(x_ND), dense(gate_up_E2FD)
    experts, twice, hidden = gate_up_E2FD.shape
    slots, inner = dispatch.slots_S.numel(), twice // 2
    h_S2F = x_ND.new_empty(slots, twice) if keep else None
    a_SF = x_ND.new_empty(slots, inner) if activate else None
    if slots:
        # Half of a box's columns are gates, the other half the ups that belong to them.
        weights = TensorMap(
            gate_up_E2FD.data_ptr(),
            sizes=(hidden, inner, 2, experts),
            strides=(hidden, inner * hidden, twice * hidden),
            box=(DEPTH, COLUMNS // 2, 1, 1),
        )
        sizes = (experts, hidden, inner, dispatch.active)
        launch(
            _kernel("up", dispatch),
            (weights, x_ND, dispatch.slots_S, dispatch.offsets_E1, h_S2F, a_SF, *sizes),
        )
    return h_S2F, a_SF


def down(a_SF: Tensor, down_EDF: Tensor, dispatch: Dispatch, launch: Launch) -> Tensor:
    """Return rows_SD = W_down a for each place, neither weighted nor added up."""
    a_SF, down_EDF = dense(a_SF), dense(down_EDF)
    experts, hidden, inner = down_EDF.shape
    slots, every = a_SF.shape[0], a_SF.numel()
    rows_SD = a_SF.new_empty(slots, hidden)
    if slots:
        weights = TensorMap(
            down_EDF.data_ptr(),
            sizes=(inner, hidden, 1, experts),
            strides=(inner, hidden * inner, hidden * inner),
            box=(DEPTH, COLUMNS // 2, 1, 1),
        )
        # A box near the end of an expert reaches into the next one; the results of those rows are not stored.
        a = TensorMap(
            a_SF.data_ptr(),
            sizes=(inner, slots, 1, 1),
            strides=(inner, every, every),
            box=(DEPTH, ROWS, 1, 1),
        )
        launch(
            _kernel("down", dispatch),
            (weights, a, dispatch.offsets_E1, rows_SD, experts, hidden, inner),
        )
    return rows_SD


def d_hidden(
    dy_ND: Tensor, h_S2F: Tensor, weights_NK: Tensor, down_EDF: Tensor, dispatch: Dispatch, launch: Launch
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dh_S2F, (s a)_SF and dweights_NK. For dropped slots, the rows contain anything and the gradient is 0."""
    dy_ND, h_S2F, down_EDF = dense(dy_ND), dense(h_S2F), dense(down_EDF)
    experts, hidden, inner = down_EDF.shape
    slots, across = h_S2F.shape[0], -(-inner // COLUMNS)
    dh_S2F, weighted_SF = torch.empty_like(h_S2F), h_S2F.new_empty(slots, inner)
    parts_CS = torch.zeros(across, slots, dtype=torch.float32, device=h_S2F.device)
    if slots:
        # The sum runs across the rows of these weights: half of a box's columns are two chunks of 64 side by side.
        weights = TensorMap(
            down_EDF.data_ptr(),
            sizes=(DEPTH, hidden, inner // DEPTH, experts),
            strides=(inner, DEPTH, hidden * inner),
            box=(DEPTH, DEPTH, COLUMNS // 2 // DEPTH, 1),
        )
        rows = (weights_NK.flatten().float(), h_S2F, dh_S2F, weighted_SF, parts_CS)
        sizes = (slots, experts, hidden, inner, dispatch.active)
        launch(
            _kernel("d_hidden", dispatch),
            (weights, dy_ND, dispatch.slots_S, dispatch.offsets_E1, *rows, *sizes),
        )
    return dh_S2F, weighted_SF, parts_CS.sum(dim=0).to(weights_NK.dtype).view_as(weights_NK)


def _kernel(name: KernelName, dispatch: Dispatch) -> Kernel:
    rows = dispatch.slots_S.numel() // dispatch.experts
    return Kernel(name, 2 if rows >= PAIRED_FROM else 1)


def dense(tensor: Tensor) -> Tensor:
    """Return a tensor that is contiguous and aligned to 16 bytes, as the kernels need: itself, or a copy."""
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % 16 else tensor
