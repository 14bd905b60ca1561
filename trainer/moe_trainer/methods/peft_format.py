"""LoRA adapters on disk, as PEFT reads and writes them: adapter_config.json and adapter_model.safetensors.

    a linear layer         NAME.lora_A.weight (R, I)          NAME.lora_B.weight (O, R)
    in-layer experts       EXPERTS.base_layer.lora_A/B        of gate_up_proj, as PEFT nests two parameters
                           EXPERTS.lora_A/B                   of down_proj
                           A is (E R, I): one in-layer expert after the other; B is (O, R E): the experts vary
                           fastest (peft.tuners.lora.layer.ParamWrapper)

Names are those of the base in transformers, behind ``base_model.model.``.
"""

import json
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from moe_trainer.manifest import corrupt
from moe_trainer.methods.lora_layers import LoRAExperts, LoRALinear, LowRank
from moe_trainer.tensors import load_tensors, save_tensors

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

#: The parameters of in-layer experts, as PEFT finds them in transformers' models.
EXPERT_PARAMETERS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")


class PeftConfig(BaseModel):
    """The part of adapter_config.json that we use; what is absent is at PEFT's default."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    peft_type: str = "LORA"
    task_type: str = "CAUSAL_LM"
    r: int = Field(gt=0, le=65536)
    lora_alpha: float = Field(gt=0)
    use_rslora: bool = False
    target_modules: list[str]
    target_parameters: list[str]
    lora_dropout: float = 0.0
    bias: str = "none"
    inference_mode: bool = True


def write(folder: Path, model: nn.Module, config: PeftConfig) -> None:
    """Write the updates of a model."""
    (folder / CONFIG).write_text(json.dumps(config.model_dump(), indent=2, sort_keys=True) + "\n")
    tensors = {}
    for name, update in updates(model).items():
        tensors[f"{name}.lora_A.weight"] = update.down_RI.detach().flatten(end_dim=-2).contiguous()
        tensors[f"{name}.lora_B.weight"] = _b_to_disk(update.up_OR.detach())
    save_tensors(folder / WEIGHTS, tensors)


def read_config(folder: Path) -> PeftConfig:
    """Return an adapter's config; raises JobError (ArtefactCorrupt)."""
    try:
        return PeftConfig.model_validate_json((folder / CONFIG).read_text())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise corrupt(folder, f"{CONFIG}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def read_weights(folder: Path, model: nn.Module) -> None:
    """Set the updates of a model; raises JobError (ArtefactCorrupt) unless every name and shape matches."""
    tensors, expected = load_tensors(folder / WEIGHTS), updates(model)
    names = {f"{name}.{part}.weight" for name in expected for part in ("lora_A", "lora_B")}
    if tensors.keys() != names:
        odd = sorted(tensors.keys() ^ names)
        raise corrupt(folder, f"{WEIGHTS} does not have the tensors of its {CONFIG}: {', '.join(odd[:3])}")
    for name, update in expected.items():
        _copy(folder, f"{name}.lora_A.weight", tensors, update.down_RI, stacked=False)
        _copy(folder, f"{name}.lora_B.weight", tensors, update.up_OR, stacked=update.up_OR.dim() == 3)


def updates(model: nn.Module) -> dict[str, LowRank]:
    """Return the updates of a model under PEFT's names."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            found[f"base_model.model.model.{name}"] = module.lora
        elif isinstance(module, LoRAExperts):
            found[f"base_model.model.model.{name}.base_layer"] = module.gate_up_lora
            found[f"base_model.model.model.{name}"] = module.down_lora
    return found


@torch.no_grad()
def _copy(folder: Path, name: str, tensors: dict[str, Tensor], parameter: Tensor, *, stacked: bool) -> None:
    found = tensors[name]
    if found.numel() != parameter.numel() or found.shape[-1] != (
        parameter.shape[0] * parameter.shape[-1] if stacked else parameter.shape[-1]
    ):
        raise corrupt(
            folder,
            f"{name} has shape {list(found.shape)}, which does not fit {list(parameter.shape)}: the adapter is "
            "for another base",
        )
    parameter.copy_(_b_from_disk(found, parameter) if stacked else found.view_as(parameter))


def _b_to_disk(up_OR: Tensor) -> Tensor:
    """Return B as (O, R E)."""
    return up_OR.contiguous() if up_OR.dim() == 2 else up_OR.permute(1, 2, 0).flatten(1).contiguous()


def _b_from_disk(b: Tensor, up_EOR: Tensor) -> Tensor:
    experts, outputs, rank = up_EOR.shape
    return b.view(outputs, rank, experts).permute(2, 0, 1)
