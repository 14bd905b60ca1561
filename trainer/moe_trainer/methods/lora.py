"""LoRA: low-rank updates beside frozen weights. Its artefact is a PEFT adapter.

Evaluated and served, an adapter is merged into its base, so it costs what the base costs.
"""

import math
from pathlib import Path

import torch
from torch import nn

from moe_trainer.causal_model import CausalModel
from moe_trainer.failure import JobError
from moe_trainer.job_config import LoRASpec, LoRATarget, TrainingSpec
from moe_trainer.methods import peft_format
from moe_trainer.methods.lora_layers import LoRAExperts, LoRALinear
from moe_trainer.methods.peft_format import PeftConfig
from moe_trainer.moe.layer import InLayerExperts
from moe_trainer.tokenizer import Tokenizer

#: Linear layers that choose among in-layer experts: an update there would move what is balanced.
_ROUTERS = {"gate", "router", "shared_expert_gate"}


class LoRA:
    """Train low-rank updates of the targets alone."""

    def attach(self, model: CausalModel, training: TrainingSpec, seed: int) -> None:
        """Freeze the model and give each target an update, which is zero at first."""
        if training.balancing.bias != "None":
            raise JobError(
                "InvalidConfig",
                f"training.balancing.bias is {training.balancing.bias}, which moves the base's routers, but method "
                "LoRA leaves the base as it is: set it to None.",
            )
        config = _config(model, training.lora)
        _add_updates(model, config)
        generator = torch.Generator("cpu").manual_seed(seed)
        for update in peft_format.updates(model).values():
            update.initialise(generator)

    def write(self, folder: Path, model: CausalModel, tokenizer: Tokenizer, training: TrainingSpec) -> None:
        """Write the updates as a PEFT adapter."""
        peft_format.write(folder, model, _config(model, training.lora))

    def restore(self, folder: Path, model: CausalModel, training: TrainingSpec) -> None:
        """Go on from an adapter of the same shape."""
        found, asked = peft_format.read_config(folder), _config(model, training.lora)
        if found != asked:
            raise JobError(
                "InvalidConfig",
                f"the parent is a LoRA adapter of {_words(found)}, but training.lora asks for {_words(asked)}: "
                "leave training.lora as it was, or set training.method to Full, which merges the adapter.",
            )
        peft_format.read_weights(folder, model)

    def load(self, folder: Path, model: CausalModel) -> None:
        """Merge an adapter into its base."""
        _add_updates(model, peft_format.read_config(folder))
        peft_format.read_weights(folder, model)
        for name, module in list(model.named_modules()):
            if isinstance(module, LoRALinear | LoRAExperts):
                model.set_submodule(name, module.merged())
        model.requires_grad_(True)

    merge = load


def _config(model: nn.Module, spec: LoRASpec) -> PeftConfig:
    """Return what PEFT is told; raises JobError (InvalidConfig) for a target that the model lacks."""
    parts = _parts(model)
    asked = spec.targets or tuple(parts)
    lacking = [target for target in asked if target not in parts]
    if lacking:
        raise JobError(
            "InvalidConfig",
            f"training.lora.targets has {lacking[0]}, but the base has none: its parts are {', '.join(parts)}.",
        )
    return PeftConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        use_rslora=spec.rank_stabilised,
        target_modules=sorted({name for target in asked for name in parts[target]}),
        target_parameters=list(peft_format.EXPERT_PARAMETERS) if "InLayerExperts" in asked else [],
    )


def _parts(model: nn.Module) -> dict[LoRATarget, set[str]]:
    """Return the parts of a model that can be targets, with the last names of their linear layers."""
    parts: dict[LoRATarget, set[str]] = {}
    for name, module in model.named_modules():
        block, _, last = name.rpartition(".")
        if isinstance(module, InLayerExperts):
            parts.setdefault("InLayerExperts", set())
        elif isinstance(module, nn.Linear | LoRALinear) and "layers." in block and last not in _ROUTERS:
            parts.setdefault("Attention" if "attn" in block else "FeedForward", set()).add(last)
    return parts


def _add_updates(model: nn.Module, config: PeftConfig) -> None:
    """Freeze the model and put updates, all zero, at the targets of a config."""
    model.requires_grad_(False)
    scale = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
    for name, module in list(model.named_modules()):
        if isinstance(module, InLayerExperts) and config.target_parameters:
            model.set_submodule(name, LoRAExperts(module, config.r, scale))
        elif isinstance(module, nn.Linear) and name.rpartition(".")[2] in config.target_modules:
            model.set_submodule(name, LoRALinear(module, config.r, scale))


def _words(config: PeftConfig) -> str:
    scaling = "rank-stabilised" if config.use_rslora else "by the rank"
    targets = ", ".join([*config.target_modules, *config.target_parameters])
    return f"rank {config.r}, alpha {config.lora_alpha:g} scaled {scaling}, on {targets}"
