"""Preset models on disk: a Hugging Face directory that transformers loads as Qwen3-MoE or GLM-4.5.

On disk every in-layer expert has tensors of its own, under names that both architectures share
(``model.layers.0.mlp.experts.3.up_proj.weight``); in memory those of a layer are stacked (moe/layer.py).
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from moe_trainer.models.preset_config import ModelConfig
from moe_trainer.models.preset_model import Model
from moe_trainer.storage.files import write_file
from moe_trainer.storage.manifest import corrupt, read_format
from moe_trainer.text.tokenizer import is_byte_level
from moe_trainer.weights import model_config, reading
from moe_trainer.weights.reading import RowReader, Stored, load_tensors
from moe_trainer.weights.writing import TensorStream, save_each

WEIGHTS = "model.safetensors"
CONFIG = "config.json"

#: The architectures of the presets.
PRESET_TYPES = get_args(ModelConfig.model_fields["model_type"].annotation)


def is_preset(folder: Path) -> bool:
    """Return whether a folder holds a model of the presets' architecture, with their tokenizer, whoever made it."""
    try:
        kind = model_config.read(folder).get("model_type")
    except (OSError, ValueError):
        return False
    return kind in PRESET_TYPES and (folder / WEIGHTS).exists() and is_byte_level(folder)


def write(folder: Path, model: Model, tensors: TensorStream) -> None:
    """Write weights and configs; ``tensors`` is what ``stream`` returns."""
    save_each(folder / WEIGHTS, tensors.outline(), tensors)
    write_file(folder / CONFIG, _indented(model.config.to_hugging_face()))
    write_file(folder / "generation_config.json", _indented(_generation_config(model.config)))


def stream(model: Model) -> TensorStream:
    """Return the weights of a model as they will be on disk, with separate tensors for each in-layer expert.

    Making a tensor raises ValueError for a router's bias that the architecture has no place for.
    """
    weights = model.weights() | _no_shared_experts(model.config)
    return TensorStream([{name: weight} for name, weight in weights.items()], partial(_form, model.config))


def load(folder: Path) -> Model:
    """Return the model of a verified folder, in evaluation mode; raises JobError (ArtefactCorrupt)."""
    model = Model(_read_config(folder, reading.read_header(folder, WEIGHTS)))
    set_weights(model, load_tensors(folder / WEIGHTS), folder)
    return model.eval()


def outline(folder: Path) -> tuple[Model, dict[str, RowReader]]:
    """Return the model that ``load`` returns, but without its weights, and what reads rows of each; raises the same."""
    found = reading.read_header(folder, WEIGHTS)
    model = Model.outline(_read_config(folder, found))
    rows = {
        name: _rows(name, lambda name, rows: reading.read_rows(folder, found[name], rows))
        for name in model.weights()
    }
    return model.eval(), rows


def set_weights(model: Model, tensors: dict[str, Tensor], folder: Path) -> None:
    """Set the model's weights from tensors on disk; every name and shape must match."""
    reading.check(folder, tensors, stream(model).outline())
    with torch.no_grad():
        for name, weight in model.weights().items():
            weight.copy_(_rows(name, lambda name, rows: tensors[name][rows])(slice(0, len(weight))))


def _form(config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of a model as tensors on disk, by name."""
    tensors: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.endswith(".gate_up_E2FD"):
            for expert, matrix in enumerate(value):
                gate, up = matrix.chunk(2)
                tensors[_expert_name(name, expert, "gate_proj")] = gate.contiguous()
                tensors[_expert_name(name, expert, "up_proj")] = up.contiguous()
        elif name.endswith(".down_EDF"):
            for expert, matrix in enumerate(value):
                tensors[_expert_name(name, expert, "down_proj")] = matrix.contiguous()
        elif name.endswith(".bias_E") and not config.has_router_bias:
            raise ValueError(
                f"{name} cannot be stored in a checkpoint of {config.model_type}: set model_type to glm4_moe (sigmoid scores), "
                "or balance by the loss"
            )
        else:
            tensors[_disk_name(name)] = value.contiguous()
    return tensors


def _rows(name: str, read: Callable[[str, slice], Tensor]) -> RowReader:
    """Return what makes rows of a weight, given its name in the model, from the tensors that ``read`` reads."""
    if not name.endswith((".gate_up_E2FD", ".down_EDF")):
        return lambda rows: read(_disk_name(name), rows)
    parts = ("gate_proj", "up_proj") if name.endswith(".gate_up_E2FD") else ("down_proj",)

    def stacked(experts: slice) -> Tensor:
        return torch.stack(
            [
                torch.cat([read(_expert_name(name, expert, part), slice(None)) for part in parts])
                for expert in range(experts.start, experts.stop)
            ]
        )

    return stacked


def _read_config(folder: Path, found: Mapping[str, Stored]) -> ModelConfig:
    """Return the config of a folder, before any memory is taken for what it asks for."""
    config = read_format(folder, CONFIG, ModelConfig)
    try:
        model_config.check_weights(config.model_dump(), found)
    except ValueError as error:
        raise corrupt(folder, f"{CONFIG}: {error}") from None
    experts = config.num_hidden_layers * config.num_experts
    if experts > len(found):
        raise corrupt(
            folder, f"its {CONFIG} asks for {experts:,} in-layer experts, but it has {len(found):,} tensors"
        )
    reading.check(folder, found, stream(Model.outline(config)).outline())
    return config


def _no_shared_experts(config: ModelConfig) -> dict[str, Tensor]:
    """Return the empty tensors that transformers expects in a glm4_moe without shared experts."""
    if config.model_type != "glm4_moe" or config.n_shared_experts:
        return {}
    wide, high = torch.empty(0, config.hidden_size), torch.empty(config.hidden_size, 0)
    return {
        f"layers.{layer}.mlp.shared_experts.{part}.weight": high if part == "down_proj" else wide
        for layer in range(config.num_hidden_layers)
        for part in ("gate_proj", "up_proj", "down_proj")
    }


def _disk_name(name: str) -> str:
    if name == "lm_head.weight":
        return name
    return "model." + name.replace(".bias_E", ".gate.e_score_correction_bias")


def _expert_name(name: str, expert: int, part: str) -> str:
    experts = name.rpartition(".")[0]
    return f"model.{experts}.{expert}.{part}.weight"


def _generation_config(config: ModelConfig) -> dict[str, object]:
    ids = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }
    return {**ids, "do_sample": True, "temperature": 1.0}


def _indented(value: dict[str, object]) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"
