"""LoRA adapters on disk, as PEFT reads and writes them: adapter_config.json and adapter_model.safetensors.

    a linear layer         NAME.lora_A.weight (R, I)          NAME.lora_B.weight (O, R)
    in-layer experts       EXPERTS.base_layer.lora_A/B        of gate_up_proj, as PEFT nests two parameters
                           EXPERTS.lora_A/B                   of down_proj
                           A is (E R, I): one in-layer expert after the other; B is (O, R E): the expert is the
                           fastest index (peft.tuners.lora.layer.ParamWrapper)

Names are those of the base in transformers, behind ``base_model.model.``.
"""

import json
import math
import operator
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from moe_trainer import limits
from moe_trainer.models.causal_model import parameter_names
from moe_trainer.models.in_layer import in_transformers
from moe_trainer.models.lora_layers import LoRAExperts, LoRALinear, LowRank
from moe_trainer.storage.files import write_file
from moe_trainer.storage.manifest import corrupt, read_format
from moe_trainer.weights.reading import RowReader, Stored, read_header, read_rows
from moe_trainer.weights.writing import TensorStream, save_each

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_A = ".lora_A.weight"


class PeftConfig(BaseModel):
    """The fields of adapter_config.json that we use; absent ones have PEFT's defaults."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    peft_type: str = "LORA"
    task_type: str = "CAUSAL_LM"
    r: int = Field(gt=0, le=limits.LORA_RANK)
    lora_alpha: float = Field(gt=0, allow_inf_nan=False)
    use_rslora: bool = False
    target_modules: list[str] = Field(max_length=limits.LORA_TARGETS)
    target_parameters: list[str] = Field(max_length=limits.LORA_TARGETS)
    lora_dropout: float = 0.0
    bias: str = "none"
    inference_mode: bool = True
    #: Whether weights are (inputs, outputs). Left out if not, so that adapters of other bases stay the same bytes.
    fan_in_fan_out: bool = Field(default=False, exclude_if=operator.not_)


def write(folder: Path, config: PeftConfig, tensors: TensorStream) -> None:
    """Write an adapter; the updates are written as they come."""
    write_file(folder / CONFIG, json.dumps(config.model_dump(), indent=2, sort_keys=True) + "\n")
    save_each(folder / WEIGHTS, tensors.outline(), tensors)


def stream(model: nn.Module) -> TensorStream:
    """Return the updates of a model as they will be on disk, each made when its turn comes."""
    groups: list[dict[str, Tensor]] = []
    for name, update in updates(model).items():
        groups += [{f"{name}.lora_A.weight": update.a_RI}, {f"{name}.lora_B.weight": update.b_OR}]
    return TensorStream(groups, _to_disk)


def read_config(folder: Path) -> PeftConfig:
    """Return an adapter's config; raises JobError (ArtefactCorrupt), also if its weights have a lower rank."""
    config = read_format(folder, CONFIG, PeftConfig)
    ranks = [
        stored.shape[0]
        for name, stored in read_header(folder, WEIGHTS).items()
        if name.endswith(_A) and stored.shape
    ]
    if ranks and min(ranks) < config.r:
        raise corrupt(
            folder,
            f"r in its {CONFIG} is {config.r:,}, but its {WEIGHTS} holds updates of rank {min(ranks):,}",
        )
    return config


def read_weights(folder: Path, model: nn.Module) -> list[tuple[str, RowReader]]:
    """Return readers of a model's updates, by their names in the model.

    Raises JobError (ArtefactCorrupt) unless every name and shape matches.
    """
    tensors, expected = read_header(folder, WEIGHTS), updates(model)
    names = {f"{name}.{part}.weight" for name in expected for part in ("lora_A", "lora_B")}
    if tensors.keys() != names:
        odd = sorted(tensors.keys() ^ names)
        raise corrupt(
            folder,
            f"{WEIGHTS} does not hold exactly the tensors that {CONFIG} describes: {', '.join(odd[:3])}",
        )
    in_model = parameter_names(model)
    found: list[tuple[str, RowReader]] = []
    for name, update in expected.items():
        for part, parameter in (("lora_A", update.a_RI), ("lora_B", update.b_OR)):
            stacked = part == "lora_B" and parameter.dim() == 3
            _check(folder, f"{name}.{part}.weight", tensors, parameter, stacked=stacked)
            read = partial(_rows, folder, tensors[f"{name}.{part}.weight"], parameter.shape, stacked)
            found.append((in_model[id(parameter)], read))
    return found


def updates(model: nn.Module) -> dict[str, LowRank]:
    """Return the updates of a model by PEFT's names."""
    found: dict[str, LowRank] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            found[_in_peft(name)] = module.lora
        elif isinstance(module, LoRAExperts):
            for depth, weight in enumerate(reversed(list(module.updates))):
                found[_in_peft(name) + ".base_layer" * depth] = module.update(weight)
    return found


def parameter_name(module: str, weight: str) -> str:
    """Return PEFT's name of a stacked weight: the part of its name in transformers that is the same in all layers."""
    return ".".join(in_transformers(f"{module}.{weight}").split(".")[-3:])


def _in_peft(module: str) -> str:
    """Return PEFT's name of a module."""
    return f"base_model.model.{in_transformers(module)}"


def _check(folder: Path, name: str, tensors: dict[str, Stored], parameter: Tensor, *, stacked: bool) -> None:
    found = tensors[name]
    if math.prod(found.shape) != parameter.numel() or found.shape[-1] != (
        parameter.shape[0] * parameter.shape[-1] if stacked else parameter.shape[-1]
    ):
        raise corrupt(
            folder,
            f"{name} has shape {list(found.shape)}, which does not fit {list(parameter.shape)}: the adapter "
            "belongs to another base",
        )


def _rows(folder: Path, stored: Stored, shape: torch.Size, stacked: bool, rows: slice) -> Tensor:
    """Return some rows of an A or a B. They are scattered on disk, so the whole tensor, which is small, is read."""
    found = read_rows(folder, stored)
    return (_b_from_disk(found, shape) if stacked else found.view(shape))[rows]


def _to_disk(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.flatten(end_dim=-2) if name.endswith(".lora_A.weight") else _b_to_disk(tensor)
        for name, tensor in group.items()
    }


def _b_to_disk(b_OR: Tensor) -> Tensor:
    """Return B as (O, R E)."""
    return b_OR.contiguous() if b_OR.dim() == 2 else b_OR.permute(1, 2, 0).flatten(1).contiguous()


def _b_from_disk(b: Tensor, shape_EOR: torch.Size) -> Tensor:
    experts, outputs, rank = shape_EOR
    return b.view(outputs, rank, experts).permute(2, 0, 1)
