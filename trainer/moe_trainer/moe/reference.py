"""The in-layer experts as the formula reads: a loop, in any precision. For tests and for reading."""

import torch
from torch import Tensor
from torch.nn import functional as F


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
