"""The forward pass for few slots on a CPU, as in decoding: one call for the products of all in-layer experts.

With a handful of rows each, what takes time is not the products but how many calls make them. The rows lie as
the loop (looped.py) would have them, so the result has its bits.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_trainer.moe.dispatch import Dispatch, combine

#: Beyond so many slots, the loop makes better use of the cache.
MOST_SLOTS = 512
#: Types that torch's grouped product computes in.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
#: Bytes that the product wants a row to be a multiple of.
ALIGNMENT = 16


def suits(x_ND: Tensor, gate_up_E2FD: Tensor, down_EDF: Tensor, dispatch: Dispatch) -> bool:
    """Return whether the grouped products compute a batch, and fast."""
    width = x_ND.element_size()
    return (
        0 < len(dispatch.slots_S) <= MOST_SLOTS
        and x_ND.device.type == "cpu"
        and x_ND.dtype in DTYPES
        and all(width * size % ALIGNMENT == 0 for size in down_EDF.shape[1:])
        and gate_up_E2FD.is_contiguous()
        and down_EDF.is_contiguous()
        and hasattr(F, "grouped_mm")
    )


def skinny_forward(
    x_ND: Tensor, weights_NK: Tensor, gate_up_E2FD: Tensor, down_EDF: Tensor, dispatch: Dispatch
) -> Tensor:
    """Return y_ND, without what a backward pass would need."""
    ends_E = dispatch.offsets_E1[1:]
    x_SD = x_ND.index_select(0, dispatch.slots_S // dispatch.active)
    gate_EDF, up_EDF = gate_up_E2FD.mT.chunk(2, dim=2)
    a_SF = F.silu(F.grouped_mm(x_SD, gate_EDF, offs=ends_E))
    a_SF *= F.grouped_mm(x_SD, up_EDF, offs=ends_E)
    rows_SD = F.grouped_mm(a_SF, down_EDF.mT, offs=ends_E)
    rows_SD[int(ends_E[-1]) :] = 0  # of dropped slots, to which the product wrote nothing
    return combine(rows_SD, weights_NK, dispatch)
