"""LoRA: low-rank updates of frozen weights. Its artefact is a PEFT adapter.

For evaluation and serving an adapter is merged into its base, so it costs the same as the base.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from moe_formats.failure import JobError
from moe_formats.training_spec import LoRASpec, LoRATarget, TrainingSpec
from moe_trainer.methods import peft_format
from moe_trainer.methods.peft_format import PeftConfig
from moe_trainer.models.causal_model import CausalModel, parameter_names
from moe_trainer.models.in_layer import stacked_weights
from moe_trainer.models.lora_layers import LoRAExperts, LoRALinear, draw, is_transposed
from moe_trainer.parallel.filling import is_outline, put
from moe_trainer.parallel.processes import ALONE, Processes
from moe_trainer.text.tokenizer import Tokenizer
from moe_trainer.weights.reading import RowReader
from moe_trainer.weights.writing import TensorStream

#: Linear layers that choose among in-layer experts get no update, as it would change what is balanced.
_ROUTERS = {"gate", "router", "shared_expert_gate"}


class LoRA:
    """Only low-rank updates of the targets are trained."""

    def attach(self, model: CausalModel, training: TrainingSpec, seed: int) -> None:
        """Freeze the model and give each target an update, which starts as zero."""
        if training.balancing.bias != "None":
            raise JobError(
                "InvalidConfig",
                f"training.balancing.bias is {training.balancing.bias}, which moves the base's routers, but method "
                "LoRA leaves the base as it is: set it to None.",
            )
        config = _config(model, training.lora)
        _add_updates(model, config, keep=training.recompute)
        if not is_outline(model):
            put(model, self.initial(model, seed))

    def begin(
        self,
        model: CausalModel,
        batches: Iterable[Tensor],
        base: Mapping[str, RowReader],
        processes: Processes = ALONE,
    ) -> None:
        """Do nothing: the updates start as ``attach`` made them."""

    def stream(self, model: CausalModel) -> TensorStream:
        """Return the updates as PEFT stores them."""
        return peft_format.stream(model)

    def write(
        self,
        folder: Path,
        model: CausalModel,
        tokenizer: Tokenizer,
        training: TrainingSpec,
        tensors: TensorStream | None = None,
    ) -> None:
        """Write the updates as a PEFT adapter."""
        peft_format.write(folder, _config(model, training.lora), tensors or self.stream(model))

    def initial(self, model: CausalModel, seed: int) -> Iterator[tuple[str, RowReader]]:
        """Return the updates before the first step: A is drawn at random, B is zero."""
        names = parameter_names(model)
        updates = [
            (names[id(update.a_RI)], update.a_RI.shape, names[id(update.b_OR)], update.b_OR.shape)
            for update in peft_format.updates(model).values()
        ]

        def drawn() -> Iterator[tuple[str, RowReader]]:
            generator = torch.Generator("cpu").manual_seed(seed)
            for (
                a,
                a_shape,
                b,
                b_shape,
            ) in updates:  # with the shapes of the whole, even if the model is spread by now
                yield a, draw(a_shape, generator).__getitem__
                yield b, torch.zeros(b_shape, device="cpu").__getitem__

        return drawn()

    def stored(
        self, folder: Path, model: CausalModel, training: TrainingSpec
    ) -> Iterable[tuple[str, RowReader]]:
        """Return the updates of an adapter of the same shape."""
        found, asked = peft_format.read_config(folder), _config(model, training.lora)
        if found != asked:
            raise JobError(
                "InvalidConfig",
                f"the parent is a LoRA adapter of {_words(found)}, but training.lora asks for {_words(asked)}: "
                "leave training.lora as it was, or set training.method to Full, which merges the adapter.",
            )
        return peft_format.read_weights(folder, model)

    def load(self, folder: Path, model: CausalModel) -> None:
        """Merge an adapter into its base; the result is an ordinary model that computes the same."""
        _add_updates(model, peft_format.read_config(folder))
        put(model, peft_format.read_weights(folder, model))
        for name, module in list(model.named_modules()):
            if isinstance(module, LoRALinear | LoRAExperts):
                model.set_submodule(name, module.merged())
        model.requires_grad_(True)


def _config(model: CausalModel, spec: LoRASpec) -> PeftConfig:
    """Return the config for PEFT; raises JobError (InvalidConfig) for a target that the model does not have."""
    parts = _parts(model)
    if not parts:
        raise JobError(
            "InvalidConfig",
            "training.method is LoRA, which updates linear layers and in-layer experts, but the layers of the base have "
            f"none: their weights are {_weights_in_layers(model)}. Set training.method to Full, or take another base.",
        )
    asked = spec.targets or tuple(parts)
    lacking = [target for target in asked if target not in parts]
    if lacking:
        raise JobError(
            "InvalidConfig",
            f"training.lora.targets has {lacking[0]}, but the base has no such part: its parts are {_parts_in_words(parts)}.",
        )
    names = {name for target in asked for name in parts[target]}
    for other in parts.keys() - set(asked):
        if shared := sorted(names & parts[other]):
            raise JobError(
                "InvalidConfig",
                f"training.lora.targets has no {other}, but layers of that part have the same names as layers of the others "
                f"({', '.join(shared)}), and PEFT finds layers by their names: add {other}.",
            )
    return PeftConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        use_rslora=spec.rank_stabilised,
        target_modules=sorted(name for name in names if "." not in name),
        target_parameters=sorted(name for name in names if "." in name),
        fan_in_fan_out=any(_is_transposed(module) for module in model.blocks.modules()),
    )


def _parts(model: CausalModel) -> dict[LoRATarget, set[str]]:
    """Return the parts of a model that can be targets, each with PEFT's names for its layers or weights.

    In a mixture-of-experts model PEFT takes the name ``gate_proj`` for in-layer experts of an older layout. So
    other feed-forward layers are named by their parameter, ``gate_proj.weight``.
    """
    parts: dict[LoRATarget, set[str]] = {}
    in_layers = {id(module) for module in model.blocks.modules()}
    mixture = any(stacked_weights(module) for module in model.modules())
    for name, module in model.named_modules():
        block, _, last = name.rpartition(".")
        if stacked := stacked_weights(module):
            place = block if isinstance(model.get_submodule(block), LoRAExperts) else name
            names = {peft_format.parameter_name(place, weight) for weight in stacked}
            parts.setdefault("InLayerExperts", set()).update(names)
        elif (
            (_is_linear(module) or isinstance(module, LoRALinear))
            and id(module) in in_layers
            and last not in _ROUTERS
        ):
            if "att" in block.rpartition(".")[2]:
                parts.setdefault("Attention", set()).add(last)
            else:
                parts.setdefault("FeedForward", set()).add(f"{last}.weight" if mixture else last)
    return parts


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or is_transposed(module)


def _is_transposed(module: nn.Module) -> bool:
    return module.transposed if isinstance(module, LoRALinear) else is_transposed(module)


def _parts_in_words(parts: Mapping[LoRATarget, set[str]]) -> str:
    names = "; ".join(f"{part}: {', '.join(sorted(names))}" for part, names in parts.items())
    return f"{', '.join(parts)} ({names})"


def _weights_in_layers(model: CausalModel) -> str:
    """Return the names of the matrices in a model's layers, each with the class of its module."""
    found = {
        f"{name.rpartition('.')[2]} ({type(module).__name__})"
        for name, module in model.blocks.named_modules()
        if any(weight.dim() > 1 for weight in module.parameters(recurse=False))
    }
    return ", ".join(sorted(found)) or "vectors"


def _add_updates(model: nn.Module, config: PeftConfig, *, keep: bool = False) -> None:
    """Freeze the model and add updates of zero at the targets of a config."""
    model.requires_grad_(False)
    scale = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
    targets = {*config.target_modules, *config.target_parameters}
    for name, module in list(model.named_modules()):
        last = name.rpartition(".")[2]
        if any(peft_format.parameter_name(name, weight) in targets for weight in stacked_weights(module)):
            model.set_submodule(name, LoRAExperts(module, config.r, scale, keep=keep))
        elif _is_linear(module) and not targets.isdisjoint({last, f"{last}.weight"}):
            model.set_submodule(name, LoRALinear(module, config.r, scale))


def _words(config: PeftConfig) -> str:
    scaling = "rank-stabilised" if config.use_rslora else "by the rank"
    targets = ", ".join([*config.target_modules, *config.target_parameters])
    return f"rank {config.r}, alpha {config.lora_alpha:g} scaled {scaling}, on {targets}"
