"""Checkpoints: all that a later attempt needs to continue as if nothing had happened. Never pickle.

    checkpoints/step-00000100/
      tensors/            trained parameters, router biases, AdamW's moments, and if the run may end early the best
                          weights; each process writes its part (parallel/tensor_files.py), and any number of
                          processes can read them
      run.safetensors     the generator's state, the loss of every step, what balancing has measured
      state.json          CheckpointState
      manifest.json       written last: a checkpoint without it does not exist

The position in the data is the number of the step (streaming/batches.py), and so is that in the learning rate's schedule
(optimization.py). The last two checkpoints are kept, so that one may be damaged.

Small checkpoints are written immediately. Large ones are copied, and written by a thread while training goes on; the next
one waits for it. A run that is killed meanwhile continues from the checkpoint before.
"""

import math
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from moe_formats.beneath import Root
from moe_formats.failure import JobError
from moe_formats.format import Digest, Format
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.parallel.holding import hold_the_same
from moe_trainer.parallel.processes import Processes
from moe_trainer.parallel.spread import local, placed, placed_like
from moe_trainer.parallel.tensor_files import check_shapes, read_tensors, write_tensors
from moe_trainer.storage.committed import Committed
from moe_trainer.storage.committing import is_committed, new_folder, unfinished_folder
from moe_trainer.storage.files import discard_unfinished, drop, make_folder, write_file
from moe_trainer.training.balancing import Balancer
from moe_trainer.training.curriculum import CurriculumState
from moe_trainer.training.early_stop import BestWeights
from moe_trainer.training.load_record import LayerRecord
from moe_trainer.training.optimization import AdamW, trained_parameters
from moe_trainer.weights.reading import load_tensors
from moe_trainer.weights.writing import save_tensors

KEPT = 2
#: Checkpoints with more bytes than this per process are written in the background; smaller ones take milliseconds.
AT_ONCE_BYTES = 64 << 20

_TENSORS = "tensors"
_RUN = "run.safetensors"
_STATE = "state.json"


class CheckpointState(Format):
    """The part of a checkpoint that is not tensors."""

    inputs: Digest = Field(description="Digest of the run's inputs; a checkpoint of other inputs is skipped.")
    step: int = Field(description="The number of steps taken.")
    validations: dict[int, float] = Field(default_factory=dict, description="Step to bits per byte.")
    loads: dict[int, tuple[LayerRecord, ...]] = Field(
        default_factory=dict, description="Step to the load of each layer since the previous validation."
    )
    curriculum: CurriculumState | None = Field(
        default=None, description="Which sources are read how often; absent without a curriculum."
    )


#: The state of a checkpoint, or None if there is no good one; and why newer ones cannot be used.
_Found = tuple[CheckpointState | None, list[str]]
_NONE: _Found = (None, [])


@dataclass
class Curve:
    """What a run has measured so far."""

    #: Cross-entropy of every step, nats per token; None for a step without a token that is learnt.
    losses: list[float | None] = field(default_factory=list)
    validations: dict[int, float] = field(default_factory=dict)  #: Step to bits per byte.
    loads: dict[int, tuple[LayerRecord, ...]] = field(default_factory=dict)  #: Step to each layer's load.
    curriculum: CurriculumState | None = None  #: Which sources are read how often; None without a curriculum.


@dataclass(frozen=True)
class Trained:
    """The parts of a run that a checkpoint saves, as this process has them."""

    model: CausalModel
    optimizer: AdamW
    balancer: Balancer
    processes: Processes
    best: BestWeights | None = None  #: Only if the run may end early.

    def spread_tensors(self) -> dict[str, Tensor]:
        """Return the tensors of which each process holds a part, with its place in the whole; they share the run's memory."""
        trained = placed(trained_parameters(self.model), self.model, self.processes)
        tensors = {f"bias.{layer}": bias for layer, bias in enumerate(self._biases())}
        for name, parameter in trained.items():
            tensors[f"parameter.{name}"] = parameter
            tensors[f"first_moment.{name}"] = placed_like(parameter, self.optimizer.first_moments[name])
            tensors[f"second_moment.{name}"] = placed_like(parameter, self.optimizer.second_moments[name])
            if self.best is not None:
                tensors[f"best.{name}"] = placed_like(parameter, self.best.parameters[name])
        if self.best is not None:
            tensors |= {f"best_bias.{layer}": bias for layer, bias in enumerate(self.best.biases)}
        return tensors

    def _biases(self) -> list[Tensor]:
        """Return the routers' selection biases, which are not parameters but change too."""
        return [mixture.bias_E for mixture in self.model.mixtures if mixture.bias_E is not None]


class Checkpoints:
    """The checkpoints of one run. All its processes call each method together."""

    def __init__(self, root: Path, path: str, inputs: Digest, trained: Trained) -> None:
        """Keep the checkpoints of a run, identified by the digest of its inputs, in a folder of a store."""
        self._root, self._path, self._inputs, self._trained = root, path, inputs, trained
        self._processes = trained.processes
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def save(self, curve: Curve) -> None:
        """Commit a checkpoint of the current step, now or in the background, and drop all but the last two.

        Raises the error of this checkpoint or of the one before, such as OSError for a full disk.
        """
        self.wait()
        tensors = self._trained.spread_tensors()
        losses = [math.nan if loss is None else loss for loss in curve.losses]
        run = {"rng": torch.get_rng_state(), "losses": torch.tensor(losses, dtype=torch.float64)}
        run |= {f"balancing.{name}": tensor for name, tensor in self._trained.balancer.tensors().items()}
        state = CheckpointState(
            inputs=self._inputs,
            step=len(curve.losses),
            validations=curve.validations,
            loads=curve.loads,
            curriculum=curve.curriculum,
        )
        if sum(_bytes(tensor) for tensor in tensors.values()) <= AT_ONCE_BYTES:
            self._write(tensors, run, state)
            return
        run, tensors = _copied(run), _copied(tensors)
        state = state.model_copy(deep=True)
        self._writing = self._writer.submit(self._write, tensors, run, state)

    def wait(self) -> None:
        """Wait until the last checkpoint is committed; raises its error."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def restore(self) -> tuple[Curve, list[str]]:
        """Load the newest good checkpoint into the run.

        Returns its curve, which is empty if there is no such checkpoint, and why each newer one was skipped.
        """
        with ExitStack() as folders:
            found, mine = _NONE, None
            if self._processes.first:
                with Root(self._root) as store, make_folder(store, self._path) as folder:
                    discard_unfinished(folder)  # of an attempt that was killed while writing
                found, mine = self._newest_good(folders)
            state, skipped = self._processes.from_first(found)
            if state is None:
                return Curve(), skipped
            path = self._path_of(_name(state.step))
            held = self._processes.together(
                lambda: mine or folders.enter_context(Committed(self._root, path))
            )
            hold_the_same(held, self._processes)
            return self._loaded(held.show(), state), skipped

    def _loaded(self, folder: Path, state: CheckpointState) -> Curve:
        """Load an open checkpoint into the run, and return its curve."""
        read_tensors(folder / _TENSORS, self._trained.spread_tensors(), self._processes.everyone)
        run = load_tensors(folder / _RUN)
        torch.set_rng_state(run["rng"])
        self._trained.optimizer.steps_done = state.step
        self._trained.balancer.load_tensors(_under("balancing.", run))
        losses = [None if math.isnan(loss) else loss for loss in run["losses"].tolist()]
        return Curve(losses, state.validations, state.loads, state.curriculum)

    def drop_all(self) -> None:
        """Remove all checkpoints at the end of the run; it does not matter if the last one could not be written."""
        with suppress(OSError):
            self.wait()
        if self._processes.first:
            drop(self._root, self._path)

    def _write(self, tensors: dict[str, Tensor], run: dict[str, Tensor], state: CheckpointState) -> None:
        """Write this process's part; the first process creates the folder, and commits it when all have written."""
        group = self._processes.background
        path = self._path_of(_name(state.step))
        if not self._processes.first:
            within = self._processes.from_first("", group)
            with unfinished_folder(self._root, path, within) as folder:
                write_tensors(folder, tensors, group)
            return
        with new_folder(self._root, path, "checkpoint") as working:
            (working / _TENSORS).mkdir()
            within = self._processes.from_first(f"{working.name}/{_TENSORS}", group)
            with unfinished_folder(self._root, path, within) as folder:
                write_tensors(folder, tensors, group)
            save_tensors(working / _RUN, run)
            write_file(working / _STATE, state.to_json())
        for old in _newest_first(self._root, self._path)[KEPT:]:
            drop(self._root, self._path_of(old))

    def _newest_good(self, folders: ExitStack) -> tuple[_Found, Committed | None]:
        """Return the state of the newest checkpoint from which this run can continue, and why newer ones cannot be used.

        The checkpoint has been verified, and stays open in ``folders``.
        """
        skipped = []
        expected = self._trained.spread_tensors()
        for candidate in _newest_first(self._root, self._path):
            with ExitStack() as opening:
                try:
                    held = opening.enter_context(Committed(self._root, self._path_of(candidate)))
                    held.verify()
                    state = CheckpointState.model_validate_json(held.read(_STATE))
                    if state.inputs != self._inputs:
                        skipped.append(f"{candidate}: it was made from other inputs ({state.inputs})")
                        continue
                    if candidate != _name(state.step):
                        skipped.append(f"{candidate}: it is the checkpoint of step {state.step}")
                        continue
                    check_shapes(held.show() / _TENSORS, expected)
                except (JobError, ValueError, OSError) as error:
                    skipped.append(f"{candidate}: {error}")
                    continue
                folders.push(opening.pop_all())
                return (state, skipped), held
        return (None, skipped), None

    def _path_of(self, name: str) -> str:
        return f"{self._path}/{name}"


def _name(step: int) -> str:
    return f"step-{step:08}"


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return copies in the host's memory, which the following steps do not change."""
    return {name: t.cpu() if t.is_cuda else t.clone() for name, t in tensors.items()}


def _bytes(tensor: Tensor) -> int:
    return local(tensor).numel() * tensor.element_size()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _newest_first(root: Path, path: str) -> list[str]:
    """Return the names of the committed checkpoints in a folder of a store, the newest first."""
    try:
        with Root(root) as store, store.folder(path) as folder, folder.entries() as entries:
            names = [entry.name for entry in entries if entry.name.startswith("step-")]
    except FileNotFoundError:
        return []
    return sorted((name for name in names if is_committed(root, f"{path}/{name}")), reverse=True)
