"""ExpertBank: k more in-layer experts in addition to the frozen ones of each mixture layer.

A bank starts as a copy. In each layer, the base's in-layer experts that the domain uses most are copied, together with
their rows of the router. Each row is moved towards the mean hidden state m of the domain's tokens:

    row = copied row + SHIFT * m / |m|^2          so that its logit is about SHIFT above the original's

So from the first step on the copies are chosen instead of the originals, and a bank with as many in-layer experts as the
base starts as the base. docs/decisions/0015 describes what else was tried.

Over several processes the base's in-layer experts are cut as usual, and a bank is held like all other weights.

Shapes: N tokens, D hidden, E in-layer experts of the base, k of the bank, F inner width, L mixture layers.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from moe_formats.failure import JobError
from moe_formats.training_spec import TrainingSpec
from moe_trainer.methods import bank_format
from moe_trainer.methods.bank_format import BankConfig
from moe_trainer.models.bank_layers import BankLayer, BankRows, add_bank, bank_layers, stack_bank
from moe_trainer.models.causal_model import CausalModel, parameter_names
from moe_trainer.models.in_layer import holds_in_layer_experts
from moe_trainer.models.preset_model import Model
from moe_trainer.parallel.filling import put
from moe_trainer.parallel.processes import ALONE, Processes
from moe_trainer.text.tokenizer import Tokenizer
from moe_trainer.weights.reading import RowReader
from moe_trainer.weights.writing import TensorStream

#: By how much the logits of copied rows start above their originals' on a mean token of the domain: e^4 is 55 to 1.
SHIFT = 4.0


class ExpertBank:
    """Only the in-layer experts of a new bank are trained, with their rows of the router."""

    def attach(self, model: CausalModel, training: TrainingSpec, seed: int) -> None:
        """Freeze the model and add a bank to each mixture layer; it stays closed until ``begin``."""
        layers, experts = bankable(model), training.bank.experts
        most = layers[0].mixture.router.experts
        if experts > most:
            raise JobError(
                "InvalidConfig",
                f"training.bank.experts is {experts}, but a bank starts as copies of the base's in-layer experts, "
                f"and its layers have {most}: set it to 1 to {most}.",
            )
        if training.balancing.against == "Base" or training.balancing.bias != "None":
            raise JobError(
                "InvalidConfig",
                "training.balancing.against and bias change the load of the base's routers, but method ExpertBank leaves "
                "them as they are, and a bank's copies start with the load of their originals: leave both out.",
            )
        model.requires_grad_(False)
        for layer in layers:
            add_bank(model, layer, experts)

    def initial(self, model: CausalModel, seed: int) -> Iterable[tuple[str, RowReader]]:
        """Return zeros: ``begin`` sets the bank's weights."""
        names = parameter_names(model)
        return [
            (names[id(weight)], partial(_zeros, weight.shape))
            for layer in bank_layers(model)
            for weight in layer.bank
        ]

    def stored(
        self, folder: Path, model: CausalModel, training: TrainingSpec
    ) -> Iterable[tuple[str, RowReader]]:
        """Open the banks, and return the weights in an artefact with a bank of the same size."""
        found = bank_format.read_config(folder).experts
        if found != training.bank.experts:
            raise JobError(
                "InvalidConfig",
                f"the parent is a bank of {found} in-layer experts, but training.bank.experts is "
                f"{training.bank.experts}: leave it at {found}, or take the bank's own base as base.",
            )
        names, layers = parameter_names(model), bank_layers(model)
        _open(layers)
        return [
            (names[id(weight)], rows)
            for layer, stored in zip(layers, bank_format.read(folder, layers), strict=True)
            for weight, rows in zip(layer.bank, stored, strict=True)
        ]

    def begin(
        self,
        model: CausalModel,
        batches: Iterable[Tensor],
        base: Mapping[str, RowReader],
        processes: Processes = ALONE,
    ) -> None:
        """Copy into a new bank those of the base's in-layer experts that some batches of ids use most."""
        layers = bank_layers(model)
        if all(_rows(layer).open for layer in layers):
            return
        names, copies = parameter_names(model), dict[str, RowReader]()
        measured = _measured(model, layers, batches, processes)
        for layer, (mean_D, counts_E) in zip(layers, measured, strict=True):
            used = counts_E.argsort(descending=True, stable=True)[: len(layer.bank[0])].tolist()
            rows, *stacked = (_chosen(base[names[id(weight)]], used) for weight in layer.base)
            own = (names[id(weight)] for weight in layer.bank)
            copies |= zip(own, (_shifted(rows, mean_D), *stacked), strict=True)
        put(model, copies.items(), processes)
        _open(layers)

    def stream(self, model: CausalModel) -> TensorStream:
        """Return the tensors of the bank."""
        return bank_format.stream(bank_layers(model))

    def write(
        self,
        folder: Path,
        model: CausalModel,
        tokenizer: Tokenizer,
        training: TrainingSpec,
        tensors: TensorStream | None = None,
    ) -> None:
        """Write the bank."""
        config = BankConfig(experts=training.bank.experts, layers=len(model.mixtures))
        bank_format.write(folder, config, tensors or self.stream(model))

    def load(self, folder: Path, model: CausalModel) -> None:
        """Stack a bank onto the base; the result is an ordinary model with more in-layer experts."""
        layers = bankable(model)
        stored = bank_format.read(folder, layers)
        while layers:  # finished layers are dropped, so that the base is not in memory twice
            stack_bank(model, layers.pop(), [rows(slice(None)) for rows in stored.pop()])
        model.set_in_layer_experts(model.mixtures[0].router.experts)


def bankable(model: CausalModel) -> list[BankLayer]:
    """Return the mixture layers to which a bank can be added; raises JobError (InvalidConfig) if none can."""
    layers, known = sum(map(holds_in_layer_experts, model.modules())), len(model.mixtures)
    if not layers:
        raise _refused("the base is dense, and a bank needs a base with in-layer experts")
    if known != layers:
        raise _refused(
            f"the routers of {layers - known} of the base's {layers} mixture layers are of a kind that is not known "
            "here, and a bank adds rows to each of them"
        )
    if model.backend(1) is None:
        raise _refused("the base's in-layer experts are of a kind that our layer does not compute")
    for router in (mixture.router for mixture in model.mixtures):
        if router.expert_groups > 1:
            raise _refused(
                f"the base's routers choose among {router.expert_groups} groups of in-layer experts, which a bank "
                "would change"
            )
        if router.scores != "softmax" and not isinstance(model, Model):
            raise _refused(
                f"the base's routers score by {router.scores}, and a bank needs routers that score by softmax"
            )
        if router.experts != model.in_layer_experts:
            raise _refused(
                f"a layer of the base has {router.experts} in-layer experts while its config.json says "
                f"{model.in_layer_experts}, so the number with a bank could not be written to config.json"
            )
    return bank_layers(model)


def _rows(layer: BankLayer) -> BankRows:
    assert isinstance(layer.mixture.beside, BankRows)
    return layer.mixture.beside


def _open(layers: Iterable[BankLayer]) -> None:
    for layer in layers:
        _rows(layer).open = True


def _chosen(base: RowReader, used: list[int]) -> RowReader:
    """Return a reader of a bank's rows, which are copies of some of the base's."""
    return lambda rows: torch.cat([base(slice(expert, expert + 1)) for expert in used[rows]])


def _shifted(rows: RowReader, mean_D: Tensor) -> RowReader:
    """Return a reader of a router's rows, moved towards a mean hidden state."""
    return lambda some: rows(some).to(mean_D) + SHIFT * mean_D / mean_D.square().sum()


def _zeros(shape: torch.Size, rows: slice) -> Tensor:
    return torch.zeros(rows.stop - rows.start, *shape[1:], device="cpu")


@torch.no_grad()
def _measured(
    model: CausalModel, layers: list[BankLayer], batches: Iterable[Tensor], processes: Processes
) -> list[tuple[Tensor, Tensor]]:
    """Return each layer's mean input over the batches of all processes, and how often each in-layer expert was chosen."""
    sums: list[list[Tensor]] = [[] for _ in layers]
    hooks = [
        _rows(layer).register_forward_pre_hook(
            lambda _, inputs, own=own: own.append(inputs[0].sum(dim=0, dtype=torch.float64))
        )
        for layer, own in zip(layers, sums, strict=True)
    ]
    counts: list[list[Tensor]] = [[] for _ in layers]
    tokens = torch.zeros((), dtype=torch.float64)
    try:
        for ids_BT in batches:
            tokens += ids_BT.numel()
            for own, routing in zip(counts, model.with_routing(ids_BT)[1], strict=True):
                own.append(routing.counts_GE.sum(dim=0))
    finally:
        for hook in hooks:
            hook.remove()
    processes.sum(tokens)
    return [
        (
            processes.sum(torch.stack(inputs).sum(dim=0)) / tokens,
            processes.sum(torch.stack(chosen).sum(dim=0)),
        )
        for inputs, chosen in zip(sums, counts, strict=True)
    ]


def _refused(why: str) -> JobError:
    return JobError("InvalidConfig", f"training.method is ExpertBank, but {why}: take method LoRA or Full.")
