"""A mixture layer with a bank: k in-layer experts beside its frozen ones, with a row of the router each.

    logits = [base's rows; bank's rows] x          one choice among all E + k, one softmax
    y      = base's experts on the slots that chose them + bank's experts on theirs

Trained, base and bank stay apart: nothing of the base's size is copied, and a bank that is taken off leaves
the base as it was. Evaluated and served they are stacked: an ordinary layer of E + k in-layer experts.

Shapes: N tokens, D hidden, E in-layer experts of the base, k of the bank, K active per token, F inner width.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from moe_trainer.moe.layer import InLayerExperts, MoELayer

#: The logit of a row that must not be chosen: far below any other, so that its probability is exactly 0.
CLOSED = -1e9


class BankedGate(nn.Linear):
    """A router's rows, frozen, and those of a bank below them."""

    def __init__(self, gate: nn.Linear, experts: int) -> None:
        super().__init__(gate.in_features, gate.out_features, bias=False, device="meta")
        self.weight = gate.weight
        self.rows = nn.Linear(gate.in_features, experts, bias=False, device=gate.weight.device)
        self.open = False  #: Until its rows are set, a bank is never chosen.

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return the logits of the base's in-layer experts, then of the bank's."""
        logits_Nk: Tensor = self.rows(x_ND)
        if not self.open:
            logits_Nk = torch.full_like(logits_Nk, CLOSED)
        return torch.cat((super().forward(x_ND), logits_Nk), dim=1)


class BankedExperts(InLayerExperts):
    """The in-layer experts of a layer, frozen, and those of a bank."""

    def __init__(self, base: InLayerExperts, experts: int) -> None:
        number, twice, hidden = base.gate_up_E2FD.shape
        with torch.device("meta"):
            super().__init__(number, hidden, twice // 2, base.backend)
        self.function, self.recompute = base.function, base.recompute
        self.gate_up_E2FD, self.down_EDF = base.gate_up_E2FD, base.down_EDF
        with torch.device(base.down_EDF.device):
            self.bank = InLayerExperts(experts, hidden, twice // 2, base.backend)

    def forward(self, x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor) -> Tensor:
        """Return the weighted outputs of each token's in-layer experts: E and above are the bank's."""
        base, bank = self.gate_up_E2FD.shape[0], self.bank.gate_up_E2FD.shape[0]
        of_bank_NK = experts_NK >= base  # so is a slot that was dropped: E + k, which is dropped in both
        y_ND = super().forward(x_ND, experts_NK.masked_fill(of_bank_NK, base), weights_NK)
        own_NK = torch.where(of_bank_NK, experts_NK - base, bank)
        added_ND: Tensor = self.bank(x_ND, own_NK, weights_NK)
        return y_ND + added_ND


def add_bank(layer: MoELayer, experts: int) -> None:
    """Put a bank of so many in-layer experts beside a layer's own; closed, its weights not set."""
    layer.gate = BankedGate(layer.gate, experts)
    layer.experts = BankedExperts(layer.experts, experts)
    _widen(layer, experts)


def stack_bank(layer: MoELayer, gate_kD: Tensor, gate_up_k2FD: Tensor, down_kDF: Tensor) -> None:
    """Make a layer an ordinary one of E + k in-layer experts, the last k of them with a bank's weights."""
    base, experts = layer.experts, gate_kD.shape[0]
    number, twice, hidden = base.gate_up_E2FD.shape
    with torch.device("meta"):
        stacked = InLayerExperts(number + experts, hidden, twice // 2, base.backend)
        gate = nn.Linear(hidden, number + experts, bias=False)
    stacked.function, stacked.recompute = base.function, base.recompute
    stacked.gate_up_E2FD = nn.Parameter(torch.cat((base.gate_up_E2FD.detach(), gate_up_k2FD)))
    stacked.down_EDF = nn.Parameter(torch.cat((base.down_EDF.detach(), down_kDF)))
    gate.weight = nn.Parameter(torch.cat((layer.gate.weight.detach(), gate_kD)))
    layer.gate, layer.experts = gate, stacked
    _widen(layer, experts)


def _widen(layer: MoELayer, experts: int) -> None:
    """Let a layer's router choose among so many more."""
    layer.router = replace(layer.router, experts=layer.router.experts + experts)
    if layer.bias_E is not None:
        layer.bias_E = torch.cat((layer.bias_E, layer.bias_E.new_zeros(experts)))
