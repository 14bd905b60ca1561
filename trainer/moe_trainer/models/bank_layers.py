"""A mixture layer with a bank: k more in-layer experts in addition to its frozen ones, each with a row of the router.

    logits = [base's rows; bank's rows] x          one choice among all E + k, one softmax
    y      = base's experts on the slots that chose them + bank's experts on theirs

In training, base and bank are separate modules: nothing of the base's size is copied, and removing the bank leaves the
base as it was. For evaluation and serving they are stacked into an ordinary layer of E + k in-layer experts.

The layer may be ours or transformers' (BankLayer): only the names of its parts differ.

Shapes: N tokens, D hidden, E in-layer experts of the base, k of the bank, K active per token, F inner width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe_trainer.models.causal_model import CausalModel, Mixture, parameter_names
from moe_trainer.models.in_layer import in_transformers, stacked_weights, with_weights
from moe_trainer.moe.layer import MoELayer

#: The logit of a row that must not be chosen: so far below the others that its probability is exactly 0.
CLOSED = -1e9


class BankRows(nn.Module):
    """A bank's rows of the router, below the router's own (``Mixture.beside``)."""

    def __init__(self, rows_ED: Tensor, experts: int) -> None:
        super().__init__()
        self.rows_kD = nn.Parameter(rows_ED.new_empty(experts, rows_ED.shape[1]))
        self.open = False  #: Until its rows are set, a bank's in-layer experts are never chosen.

    def forward(self, x_ND: Tensor, logits_NE: Tensor) -> Tensor:
        """Return the logits of the base's in-layer experts, followed by the bank's."""
        if self.open:
            logits_Nk = F.linear(x_ND, self.rows_kD.to(x_ND.dtype))
        else:
            logits_Nk = logits_NE.new_full((len(logits_NE), len(self.rows_kD)), CLOSED)
        return torch.cat((logits_NE, logits_Nk), dim=1)


class BankedExperts(nn.Module):
    """The frozen in-layer experts of a layer, and those of a bank, which are computed in the same way."""

    def __init__(self, base: nn.Module, experts: int) -> None:
        super().__init__()
        weights = stacked_weights(base)
        self.base = base
        self.sizes = (
            len(next(iter(weights.values()))),
            experts,
        )  #: E and k of the whole layer, however it is cut over processes.
        self.bank = with_weights(
            base, {name: weight.new_empty(experts, *weight.shape[1:]) for name, weight in weights.items()}
        )

    def forward(self, x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor) -> Tensor:
        """Return each token's weighted sum over its in-layer experts; numbers from E on are the bank's."""
        base, bank = self.sizes
        of_bank_NK = experts_NK >= base  # a dropped slot has number E + k, and is dropped in both
        y_ND: Tensor = self.base(x_ND, experts_NK.masked_fill(of_bank_NK, base), weights_NK)
        own_NK = torch.where(of_bank_NK, experts_NK - base, bank)
        added_ND: Tensor = self.bank(x_ND, own_NK, weights_NK)
        return y_ND + added_ND


@dataclass(frozen=True)
class BankLayer:
    """One mixture layer of a model, with a bank or without one.

    Attributes:
        mixture: its router.
        name: the model's name for the module that computes its in-layer experts, including a bank's.
        base: the base's tensors: the router's rows, gate and up, and down.
        bank: the same of the bank; empty if there is none.
        on_disk: the names of the base's tensors in transformers; a bank's have the same names on disk.

    """

    mixture: Mixture
    name: str
    base: tuple[nn.Parameter, ...]
    bank: tuple[nn.Parameter, ...]
    on_disk: tuple[str, ...]


def bank_layers(model: CausalModel) -> list[BankLayer]:
    """Return the mixture layers of a model; the router of each must be known to us (expert_bank.bankable)."""
    names = parameter_names(model)
    return [
        _layer(mixture, names[id(mixture.rows_ED)], name, model.get_submodule(name))
        for mixture, name in zip(model.mixtures, _in_layer_experts(model), strict=True)
    ]


def _in_layer_experts(model: CausalModel) -> list[str]:
    """Return the names of the modules that compute the in-layer experts of each layer, including a bank's."""
    modules = dict(model.named_modules())
    banked = [name for name, module in modules.items() if isinstance(module, BankedExperts)]
    return banked or [name for name, module in modules.items() if stacked_weights(module)]


def add_bank(model: CausalModel, layer: BankLayer, experts: int) -> None:
    """Add a bank of ``experts`` in-layer experts to a layer; the bank is closed, and its weights are not set."""
    layer.mixture.beside = BankRows(layer.mixture.rows_ED, experts)
    model.set_submodule(layer.name, BankedExperts(model.get_submodule(layer.name), experts))
    _widen(layer.mixture, experts)


def stack_bank(model: CausalModel, layer: BankLayer, bank: Sequence[Tensor]) -> None:
    """Turn a layer into an ordinary one of E + k in-layer experts, the last k of which have a bank's weights."""
    rows_ED, *stacked = (
        torch.cat((base.detach(), own.to(base))) for base, own in zip(layer.base, bank, strict=True)
    )
    names = parameter_names(model)
    module, _, last = names[id(layer.mixture.rows_ED)].rpartition(".")
    setattr(model.get_submodule(module), last, nn.Parameter(rows_ED))
    experts = model.get_submodule(layer.name)
    weights = dict(zip(stacked_weights(experts), stacked, strict=True))
    model.set_submodule(layer.name, with_weights(experts, weights))
    _widen(layer.mixture, len(bank[0]))
    if isinstance(layer.mixture, MoELayer) and layer.mixture.bias_E is not None:
        layer.mixture.bias_E = layer.mixture.whole_bias_E


def _layer(mixture: Mixture, rows: str, name: str, experts: nn.Module) -> BankLayer:
    base, bank = (experts.base, experts.bank) if isinstance(experts, BankedExperts) else (experts, None)
    weights = stacked_weights(base)
    beside = (mixture.beside.rows_kD,) if isinstance(mixture.beside, BankRows) else ()
    return BankLayer(
        mixture,
        name,
        base=(mixture.rows_ED, *weights.values()),
        bank=(*beside, *(stacked_weights(bank).values() if bank is not None else ())),
        on_disk=(in_transformers(rows), *(in_transformers(f"{name}.{weight}") for weight in weights)),
    )


def _widen(mixture: Mixture, experts: int) -> None:
    """Let a router choose among ``experts`` more."""
    mixture.router = replace(mixture.router, experts=mixture.router.experts + experts)
