"""The three products as functions of tensors: shapes, tensor maps, and what each kernel is given."""

import torch
from torch import Tensor

from moe_trainer.moe.cuda.compile import Kernel, KernelName
from moe_trainer.moe.cuda.launch import Launch, TensorMap
from moe_trainer.moe.dispatch import Dispatch

ROWS, COLUMNS, DEPTH = 128, 256, 64  # of a tile: kRows, kColumns, kDepth of the sources

#: Rows of an in-layer expert, on average, from which two blocks share the weights that they read. A pair of
#: blocks wastes up to 255 rows at an expert's end instead of 127. By reasoning, not measured on a GPU.
PAIRED_FROM = 1024


def up(
    x_ND: Tensor, gate_up_E2FD: Tensor, dispatch: Dispatch, launch: Launch, *, keep: bool, activate: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return h_S2F = W_gate_up x if it is to be kept, and a_SF = silu(g) * u if that is wanted.

    Rows at places of dropped slots hold anything.
    """
    experts, twice, hidden = gate_up_E2FD.shape
    slots, inner = dispatch.slots_S.numel(), twice // 2
    h_S2F = x_ND.new_empty(slots, twice) if keep else None
    a_SF = x_ND.new_empty(slots, inner) if activate else None
    weights = TensorMap(
        _address(gate_up_E2FD, "gate_up"),
        (hidden, inner, 2, experts),
        (hidden, inner * hidden, twice * hidden),
        (DEPTH, COLUMNS // 2, 1, 1),
    )
    x_ND, ordering = x_ND.contiguous(), (dispatch.slots_S, dispatch.offsets_E1)
    if slots:
        launch(
            _kernel("up", dispatch),
            (weights, x_ND, *ordering, h_S2F, a_SF, experts, hidden, inner, dispatch.active),
        )
    return h_S2F, a_SF


def down(a_SF: Tensor, down_EDF: Tensor, dispatch: Dispatch, launch: Launch) -> Tensor:
    """Return rows_SD = W_down a for each place, neither weighted nor added."""
    experts, hidden, inner = down_EDF.shape
    slots = a_SF.shape[0]
    rows_SD = a_SF.new_empty(slots, hidden)
    weights = TensorMap(
        _address(down_EDF, "down"),
        (inner, hidden, 1, experts),
        (inner, hidden * inner, hidden * inner),
        (DEPTH, COLUMNS // 2, 1, 1),
    )
    if slots:
        a = TensorMap(
            _address(a_SF, "a"),
            (inner, slots, 1, 1),
            (inner, slots * inner, slots * inner),
            (DEPTH, ROWS, 1, 1),
        )
        launch(
            _kernel("down", dispatch),
            (weights, a, dispatch.offsets_E1, rows_SD, experts, hidden, inner),
        )
    return rows_SD


def d_hidden(
    dy_ND: Tensor, h_S2F: Tensor, weights_NK: Tensor, down_EDF: Tensor, dispatch: Dispatch, launch: Launch
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dh_S2F, (s a)_SF and dweights_NK: of dropped slots the rows hold anything, the gradient is 0."""
    experts, hidden, inner = down_EDF.shape
    slots = h_S2F.shape[0]
    dh_S2F, weighted_SF = torch.empty_like(h_S2F), h_S2F.new_empty(slots, inner)
    across = -(-inner // COLUMNS)
    parts_CS = torch.zeros(across, slots, dtype=torch.float32, device=h_S2F.device)
    # The weights lie [hidden, inner]: the sum runs along the rows. A box is two chunks of 64 columns.
    weights = TensorMap(
        _address(down_EDF, "down"),
        (DEPTH, hidden, inner // DEPTH, experts),
        (inner, DEPTH, hidden * inner),
        (DEPTH, DEPTH, COLUMNS // 2 // DEPTH, 1),
    )
    dy_ND, ordering = dy_ND.contiguous(), (dispatch.slots_S, dispatch.offsets_E1)
    rows = (weights_NK.flatten().float(), h_S2F, dh_S2F, weighted_SF, parts_CS)
    if slots:
        launch(
            _kernel("d_hidden", dispatch),
            (weights, dy_ND, *ordering, *rows, slots, experts, hidden, inner, dispatch.active),
        )
    return dh_S2F, weighted_SF, parts_CS.sum(dim=0).to(weights_NK.dtype).view_as(weights_NK)


def _kernel(name: KernelName, dispatch: Dispatch) -> Kernel:
    rows = dispatch.slots_S.numel() // dispatch.experts
    return Kernel(name, 2 if rows >= PAIRED_FROM else 1)


def _address(tensor: Tensor, name: str) -> int:
    """Return where a tensor begins; raises ValueError if the copy engine cannot read it."""
    if not tensor.is_contiguous() or tensor.data_ptr() % 16:
        raise ValueError(
            f"{name} must be contiguous and begin at a multiple of 16 bytes: pass {name}.clone()"
        )
    return tensor.data_ptr()
