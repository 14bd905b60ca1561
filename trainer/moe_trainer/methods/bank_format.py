"""Banks of in-layer experts on disk: bank_config.json and bank.safetensors.

The tensors have the names and the layout of stacked in-layer experts in transformers, k instead of E of them:

    model.layers.0.mlp.gate.weight (k, D)    ….experts.gate_up_proj (k, 2F, D)    ….experts.down_proj (k, D, F)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError
from torch import Tensor

from moe_trainer.formats import Format
from moe_trainer.manifest import corrupt
from moe_trainer.moe.layer import MoELayer
from moe_trainer.streams import Stream, save_each
from moe_trainer.tensors import load_tensors

CONFIG = "bank_config.json"
WEIGHTS = "bank.safetensors"


class BankConfig(Format):
    """What a bank consists of."""

    experts: int = Field(gt=0, description="In-layer experts that it has in each mixture layer, k.")
    layers: int = Field(gt=0, description="Mixture layers of its base.")


@dataclass(frozen=True)
class LayerBank:
    """A bank's part in one layer."""

    gate_kD: Tensor
    gate_up_k2FD: Tensor
    down_kDF: Tensor


def write(folder: Path, config: BankConfig, tensors: Stream) -> None:
    """Write a bank, whose tensors are those of ``stream``."""
    save_each(folder / WEIGHTS, tensors.outline(), tensors)
    (folder / CONFIG).write_text(config.to_json() + "\n")


def stream(parts: Sequence[LayerBank]) -> Stream:
    """Return the tensors of a bank as they will be on disk."""
    groups: list[dict[str, Tensor]] = []
    for layer, part in enumerate(parts):
        weights = (part.gate_kD, part.gate_up_k2FD, part.down_kDF)
        groups += [{name: weight} for name, weight in zip(_names(layer), weights, strict=True)]
    return Stream(groups, lambda group: group)


def read_config(folder: Path) -> BankConfig:
    """Return what a bank consists of; raises JobError (ArtefactCorrupt)."""
    try:
        return BankConfig.model_validate_json((folder / CONFIG).read_text())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise corrupt(folder, f"{CONFIG}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def read(folder: Path, layers: Sequence[MoELayer]) -> list[LayerBank]:
    """Return a bank's weights; raises JobError (ArtefactCorrupt) unless they fit the layers of the base."""
    config, tensors = read_config(folder), load_tensors(folder / WEIGHTS)
    if config.layers != len(layers):
        raise corrupt(
            folder, f"it is a bank for {config.layers} mixture layers, and the base has {len(layers)}"
        )
    expected: dict[str, list[int]] = {}
    for number, layer in enumerate(layers):
        _, twice, hidden = layer.experts.gate_up_E2FD.shape
        shapes = (
            [config.experts, hidden],
            [config.experts, twice, hidden],
            [config.experts, hidden, twice // 2],
        )
        expected |= dict(zip(_names(number), shapes, strict=True))
    if tensors.keys() != expected.keys():
        odd = sorted(tensors.keys() ^ expected.keys())
        raise corrupt(folder, f"{WEIGHTS} does not have the tensors of its {CONFIG}: {', '.join(odd[:3])}")
    for name, shape in expected.items():
        if list(tensors[name].shape) != shape:
            raise corrupt(folder, f"{name} has shape {list(tensors[name].shape)}, not {shape}")
    return [LayerBank(*(tensors[name] for name in _names(number))) for number in range(len(layers))]


def _names(layer: int) -> tuple[str, str, str]:
    """Return the names of the rows, of gate and up, and of down."""
    block = f"model.layers.{layer}.mlp"
    return f"{block}.gate.weight", f"{block}.experts.gate_up_proj", f"{block}.experts.down_proj"
