"""Banks of in-layer experts on disk: bank_config.json and bank.safetensors.

The tensors have the names and the layout of the base's tensors in transformers, where in-layer experts are stacked, with
k of them instead of E. For Qwen3-MoE, and so for the presets:

    model.layers.0.mlp.gate.weight (k, D)    ….experts.gate_up_proj (k, 2F, D)    ….experts.down_proj (k, D, F)
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from moe_formats.format import Format
from moe_trainer import limits
from moe_trainer.models.bank_layers import BankLayer
from moe_trainer.storage.files import write_file
from moe_trainer.storage.manifest import corrupt, read_format
from moe_trainer.weights.reading import RowReader, check, read_header, read_rows
from moe_trainer.weights.writing import TensorStream, save_each

CONFIG = "bank_config.json"
WEIGHTS = "bank.safetensors"


class BankConfig(Format):
    """The sizes of a bank."""

    experts: int = Field(
        gt=0, le=limits.EXPERTS, description="The number of its in-layer experts in each mixture layer, k."
    )
    layers: int = Field(gt=0, le=limits.LAYERS, description="The number of mixture layers of its base.")


def write(folder: Path, config: BankConfig, tensors: TensorStream) -> None:
    """Write a bank; ``tensors`` is what ``stream`` returns."""
    save_each(folder / WEIGHTS, tensors.outline(), tensors)
    write_file(folder / CONFIG, config.to_json() + "\n")


def stream(layers: Sequence[BankLayer]) -> TensorStream:
    """Return the tensors of the layers' banks as they will be on disk."""
    groups: list[dict[str, Tensor]] = [
        {name: weight} for layer in layers for name, weight in zip(layer.on_disk, layer.bank, strict=True)
    ]
    return TensorStream(groups, lambda group: group)


def read_config(folder: Path) -> BankConfig:
    """Return the sizes of a bank; raises JobError (ArtefactCorrupt)."""
    return read_format(folder, CONFIG, BankConfig)


def read(folder: Path, layers: Sequence[BankLayer]) -> list[list[RowReader]]:
    """Return for each layer the readers of a bank's router rows, gate and up, and down.

    Raises JobError (ArtefactCorrupt) unless they fit the layers of the base.
    """
    config, tensors = read_config(folder), read_header(folder, WEIGHTS)
    if config.layers != len(layers):
        raise corrupt(
            folder,
            f"it is a bank for {config.layers} mixture layers, but the base has {len(layers)}: it belongs to another base",
        )
    expected = {
        name: torch.empty(config.experts, *base.shape[1:], device="meta")
        for layer in layers
        for name, base in zip(layer.on_disk, layer.base, strict=True)
    }
    check(folder, tensors, expected, f"{CONFIG} beside this base")
    return [[partial(read_rows, folder, tensors[name]) for name in layer.on_disk] for layer in layers]
