"""ExpertBank: k in-layer experts beside the frozen ones of each mixture layer, trained in the forward pass.

A bank starts as a copy. In each layer the base's in-layer experts that the domain uses most are copied, and
their rows of the router with them, each moved towards the mean hidden state m of the domain's tokens:

    row = copied row + SHIFT * m / |m|^2          so that its logit is about SHIFT above the original's

So the copies answer for the originals from the first step on, with their weights, and a bank of as many
in-layer experts as the base has starts as the base. What else was tried: docs/decisions/0015.

Shapes: N tokens, D hidden, E in-layer experts of the base, k of the bank, F inner width.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from moe_trainer.causal_model import CausalModel
from moe_trainer.failure import JobError
from moe_trainer.job_config import TrainingSpec
from moe_trainer.methods import bank_format
from moe_trainer.methods.bank_format import BankConfig, LayerBank
from moe_trainer.methods.bank_layers import BankedExperts, BankedGate, add_bank, stack_bank
from moe_trainer.model import Model
from moe_trainer.moe.layer import MoELayer
from moe_trainer.streams import Stream
from moe_trainer.tokenizer import Tokenizer

#: How far the copied rows' logits start above their originals' on a mean token of the domain: e^4 is 55 to 1.
SHIFT = 4.0


class ExpertBank:
    """Train in-layer experts of a new bank alone."""

    def attach(self, model: CausalModel, training: TrainingSpec, seed: int) -> None:
        """Freeze the model and put a bank into each mixture layer; it stays closed until ``begin``."""
        layers, experts = bankable(model), training.bank.experts
        for layer in layers:
            if experts > layer.router.experts:
                raise JobError(
                    "InvalidConfig",
                    f"training.bank.experts is {experts}, but a bank starts as copies of the base's in-layer experts, "
                    f"and its layers have {layer.router.experts}: set it to 1 to {layer.router.experts}.",
                )
        if training.balancing.against == "Base" or training.balancing.bias != "None":
            raise JobError(
                "InvalidConfig",
                "training.balancing asks for a load of the base's routers, but method ExpertBank leaves them as they "
                "are, and a bank's copies start with the load of their originals: leave against and bias out.",
            )
        model.requires_grad_(False)
        for layer in layers:
            add_bank(layer, experts)

    def begin(self, model: CausalModel, batches: Iterable[Tensor]) -> None:
        """Copy the base's in-layer experts that some batches of ids use most into a bank that is new."""
        banks = _banks(model)
        if all(gate.open for gate, _ in banks):
            return
        means_LD, counts_LE = _measured(model, batches)
        with torch.no_grad():
            for (gate, experts), mean_D, counts_E in zip(banks, means_LD, counts_LE, strict=True):
                bank = experts.bank
                used = counts_E.argsort(descending=True, stable=True)[: gate.rows.out_features]
                gate.rows.weight.copy_(gate.weight[used] + SHIFT * mean_D / mean_D.square().sum())
                bank.gate_up_E2FD.copy_(experts.gate_up_E2FD[used])
                bank.down_EDF.copy_(experts.down_EDF[used])
                gate.open = True

    def stream(self, model: CausalModel) -> Stream:
        """Return the tensors of the bank alone."""
        return bank_format.stream(
            [
                LayerBank(gate.rows.weight, experts.bank.gate_up_E2FD, experts.bank.down_EDF)
                for gate, experts in _banks(model)
            ]
        )

    def write(
        self,
        folder: Path,
        model: CausalModel,
        tokenizer: Tokenizer,
        training: TrainingSpec,
        tensors: Stream | None = None,
    ) -> None:
        """Write the bank alone."""
        config = BankConfig(experts=training.bank.experts, layers=len(_banks(model)))
        bank_format.write(folder, config, tensors or self.stream(model))

    def restore(self, folder: Path, model: CausalModel, training: TrainingSpec) -> None:
        """Go on from a bank of the same size."""
        found = bank_format.read_config(folder).experts
        if found != training.bank.experts:
            raise JobError(
                "InvalidConfig",
                f"the parent is a bank of {found} in-layer experts, but training.bank.experts is "
                f"{training.bank.experts}: leave it at {found}, or take the bank's own base as base.",
            )
        for (gate, experts), part in zip(
            _banks(model), bank_format.read(folder, bankable(model)), strict=True
        ):
            with torch.no_grad():
                gate.rows.weight.copy_(part.gate_kD)
                experts.bank.gate_up_E2FD.copy_(part.gate_up_k2FD)
                experts.bank.down_EDF.copy_(part.down_kDF)
            gate.open = True

    def load(self, folder: Path, model: CausalModel) -> None:
        """Stack a bank onto the base: an ordinary model with more in-layer experts."""
        layers = bankable(model)
        for layer, part in zip(layers, bank_format.read(folder, layers), strict=True):
            stack_bank(layer, part.gate_kD, part.gate_up_k2FD, part.down_kDF)
        assert isinstance(model, Model)
        model.config = model.config.model_copy(update={"num_experts": layers[0].router.experts})

    merge = load


def bankable(model: CausalModel) -> list[MoELayer]:
    """Return the mixture layers that a bank can be put into; raises JobError (InvalidConfig) if it cannot."""
    if not model.mixtures:
        raise _refused("the base is dense, and a bank stands beside in-layer experts")
    if not isinstance(model, Model):
        raise _refused("the base is no model of ours: banks go into the presets and what branches from them")
    if model.config.n_group > 1:
        raise _refused(
            "the base's routers choose among groups of in-layer experts, which a bank would change"
        )
    return [module for module in model.modules() if isinstance(module, MoELayer)]


def _banks(model: CausalModel) -> list[tuple[BankedGate, BankedExperts]]:
    """Return the parts that ``attach`` has put into each layer."""
    found: list[tuple[BankedGate, BankedExperts]] = []
    for layer in model.modules():
        if isinstance(layer, MoELayer):
            gate, experts = layer.gate, layer.experts
            assert isinstance(gate, BankedGate) and isinstance(experts, BankedExperts)
            found.append((gate, experts))
    return found


@torch.no_grad()
def _measured(model: CausalModel, batches: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return each layer's mean input, and how often each in-layer expert of the base was chosen."""
    layers = [module for module in model.modules() if isinstance(module, MoELayer)]
    sums: list[list[Tensor]] = [[] for _ in layers]
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, own=own: own.append(inputs[0].mean(dim=0)))
        for layer, own in zip(layers, sums, strict=True)
    ]
    counts: list[list[Tensor]] = [[] for _ in layers]
    try:
        for ids_BT in batches:
            for own, routing in zip(counts, model.with_routing(ids_BT)[1], strict=True):
                own.append(routing.counts_GE.sum(dim=0))
    finally:
        for hook in hooks:
            hook.remove()
    means = [torch.stack(own).mean(dim=0) for own in sums]
    base = [layer.experts.gate_up_E2FD.shape[0] for layer in layers]
    return means, [torch.stack(own).sum(dim=0)[:e] for own, e in zip(counts, base, strict=True)]


def _refused(why: str) -> JobError:
    return JobError("InvalidConfig", f"training.method is ExpertBank, but {why}: take method LoRA or Full.")
