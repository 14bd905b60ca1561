"""Checkpoints: all that a later attempt needs to go on as if nothing had happened. Never pickle.

    checkpoints/step-00000100/
      state.safetensors   trained parameters, router biases, AdamW's moments, the generator's state, the loss of
                          every step, and what balancing has measured
      state.json          CheckpointState
      manifest.json       written last: a checkpoint without it does not exist

The data cursor is the step (data/batches.py), and so is the schedule's (optimization.py). The last two
are kept, so that one may be damaged.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from moe_trainer.balancing import Balancer
from moe_trainer.failure import JobError
from moe_trainer.formats import Digest, Format
from moe_trainer.load_record import LayerRecord
from moe_trainer.manifest import is_committed, new_folder, verify
from moe_trainer.optimization import AdamW, trained_parameters
from moe_trainer.tensors import load_tensors, save_tensors

KEPT = 2
_TENSORS = "state.safetensors"
_STATE = "state.json"


class CheckpointState(Format):
    """The part of a checkpoint that is no tensor."""

    inputs: Digest = Field(description="What the run was made from; a checkpoint of other inputs is skipped.")
    step: int = Field(description="Steps done.")
    validations: dict[int, float] = Field(default_factory=dict, description="Step to bits per byte.")
    loads: dict[int, tuple[LayerRecord, ...]] = Field(
        default_factory=dict, description="Step to the load of each layer since the validation before."
    )


@dataclass
class Curve:
    """What a run has measured so far."""

    losses: list[float] = field(default_factory=list)  #: Cross-entropy of every step, nats per token.
    validations: dict[int, float] = field(default_factory=dict)  #: Step to bits per byte.
    loads: dict[int, tuple[LayerRecord, ...]] = field(default_factory=dict)  #: Step to each layer's load.


def save(
    folder: Path, inputs: Digest, model: nn.Module, optimizer: AdamW, balancer: Balancer, curve: Curve
) -> None:
    """Commit the checkpoint of the current step and drop the oldest beyond the last two."""
    step = len(curve.losses)
    tensors = {"rng": torch.get_rng_state(), "losses": torch.tensor(curve.losses, dtype=torch.float64)}
    for name, parameter in trained_parameters(model).items():
        tensors[f"parameter.{name}"] = parameter.detach()
        tensors[f"first_moment.{name}"] = optimizer.first_moments[name]
        tensors[f"second_moment.{name}"] = optimizer.second_moments[name]
    tensors |= {f"buffer.{name}": buffer for name, buffer in _buffers(model).items()}
    tensors |= {f"balancing.{name}": tensor for name, tensor in balancer.tensors().items()}
    state = CheckpointState(inputs=inputs, step=step, validations=curve.validations, loads=curve.loads)
    with new_folder(folder / f"step-{step:08}", "checkpoint") as working:
        save_tensors(working / _TENSORS, tensors)
        (working / _STATE).write_text(state.to_json())
    for old in _newest_first(folder)[KEPT:]:
        shutil.rmtree(old)


def restore(
    folder: Path, inputs: Digest, model: nn.Module, optimizer: AdamW, balancer: Balancer
) -> tuple[Curve, list[str]]:
    """Load the newest good checkpoint into model, optimizer and balancer.

    Returns its curve, empty if there is none to go on from, and why each newer one was skipped.
    """
    skipped = []
    for candidate in _newest_first(folder):
        try:
            verify(candidate)
            state = CheckpointState.model_validate_json((candidate / _STATE).read_text())
            tensors = load_tensors(candidate / _TENSORS)
        except (JobError, ValueError) as error:
            skipped.append(f"{candidate.name}: {error}")
            continue
        if state.inputs != inputs:
            skipped.append(f"{candidate.name}: it was made from other inputs ({state.inputs})")
            continue
        _load(tensors, state.step, model, optimizer)
        balancer.load_tensors(_under("balancing.", tensors))
        return Curve(tensors["losses"].tolist(), state.validations, state.loads), skipped
    return Curve(), skipped


def _load(tensors: dict[str, Tensor], step: int, model: nn.Module, optimizer: AdamW) -> None:
    with torch.no_grad():
        for name, parameter in trained_parameters(model).items():
            parameter.copy_(tensors[f"parameter.{name}"])
            optimizer.first_moments[name].copy_(tensors[f"first_moment.{name}"])
            optimizer.second_moments[name].copy_(tensors[f"second_moment.{name}"])
        for name, buffer in _buffers(model).items():
            buffer.copy_(tensors[f"buffer.{name}"])
    optimizer.steps_done = step
    torch.set_rng_state(tensors["rng"])


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's state that is no parameter and changes: the biases of its routers."""
    state, parameters = model.state_dict(), dict(model.named_parameters(remove_duplicate=False))
    return {name: tensor for name, tensor in state.items() if name not in parameters}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _newest_first(folder: Path) -> list[Path]:
    """Return the committed checkpoints."""
    return sorted((path for path in folder.glob("step-*") if is_committed(path)), reverse=True)
