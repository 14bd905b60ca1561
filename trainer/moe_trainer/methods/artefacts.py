"""Artefacts of every method: loading them from the store, and which may be trained further by which method.

    parent           trained by        starts from                      its artefact
    a checkpoint     Full              its weights                      a checkpoint
    a checkpoint     an adapter        its weights, frozen              an adapter of the parent
    an adapter       the same method   base and adapter as they are     an adapter of the parent's base
    an adapter       Full              base and adapter merged          a checkpoint
    an adapter       another method    refused

So an adapter's base is always a checkpoint, and repeated refreshes never increase what has to be loaded.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from moe_formats.failure import JobError
from moe_formats.format import Digest
from moe_formats.job_config import ArtefactRef
from moe_formats.training_spec import MethodName, TrainingSpec
from moe_trainer.methods import adapter, checkpoint_format
from moe_trainer.methods.adapter import ADAPTER, AdapterRecord
from moe_trainer.methods.expert_bank import ExpertBank
from moe_trainer.methods.full import Full
from moe_trainer.methods.lora import LoRA
from moe_trainer.methods.method import AdapterMethod, Method
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.models.generation_config import set_temperature
from moe_trainer.parallel.filling import fill, is_outline, put, rows_of_all
from moe_trainer.parallel.holding import held_together
from moe_trainer.parallel.processes import ALONE, Processes
from moe_trainer.parallel.spread import spread
from moe_trainer.storage.committed import opened
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.files import write_file
from moe_trainer.storage.manifest import read_manifest
from moe_trainer.text.tokenizer import Tokenizer
from moe_trainer.weights.reading import RowReader
from moe_trainer.weights.writing import TensorStream

ADAPTERS: Mapping[MethodName, AdapterMethod] = {"LoRA": LoRA(), "ExpertBank": ExpertBank()}
METHODS: Mapping[MethodName, Method] = {"Full": Full(), **ADAPTERS}


@dataclass(frozen=True)
class Start:
    """A model to which a method has been attached, ready for training."""

    model: CausalModel
    tokenizer: Tokenizer
    base: ArtefactRef | None  #: The base that the artefact will name; None if it needs none.
    #: Readers of the base's weights, by their names in the model; empty where all weights are trained.
    weights: Mapping[str, RowReader] = field(default_factory=dict)
    added: Iterable[
        tuple[str, RowReader]
    ] = ()  #: The tensors that the method added, if the weights are still to be filled in.
    folders: ExitStack = field(default_factory=ExitStack)  #: What is held open for the readers above.

    def close(self) -> None:
        """Close the folders from which weights are read, once all of them are; raises JobError (ArtefactCorrupt)."""
        self.folders.close()

    def take_part(self, processes: Processes, shard: bool | None = None) -> None:
        """Reduce the model to this process's part, as ``spread`` does, and fill in its weights."""
        empty = is_outline(self.model)
        spread(self.model, processes, shard)
        if empty:
            fill(self.model, processes, chain(self.weights.items(), self.added))


def load(store: Path, path: str, digest: Digest) -> tuple[CausalModel, Tokenizer]:
    """Return the model of an artefact in a store, in evaluation mode, and its tokenizer.

    Raises JobError (ArtefactCorrupt) unless every byte of it, and of its base, is what their digests say.
    """
    record = adapter.read(store, path, digest)
    model, tokenizer = _checkpoint(store, path, digest, record)
    if record is None:
        return model, tokenizer
    with opened(store, path, digest) as folder:
        ADAPTERS[record.method].load(folder, model)
    return model.eval(), tokenizer


def load_spread(
    store: Path, path: str, digest: Digest, processes: Processes
) -> tuple[CausalModel, Tokenizer]:
    """Return what ``load`` returns, spread over the processes; none of them loads more than it will hold.

    An adapter is merged into its whole base before the result is cut.
    """
    record = adapter.read(store, path, digest)
    if processes.alone or record is not None:
        model, tokenizer = load(store, path, digest)
        spread(model, processes)
        return model, tokenizer
    with ExitStack() as folders:
        outline = _outline(store, path, digest, record, processes, folders)
        spread(outline.model, processes)
        fill(outline.model, processes, outline.weights.items())
    return outline.model, outline.tokenizer


def start(
    store: Path, parent: ArtefactRef, training: TrainingSpec, seed: int, processes: Processes = ALONE
) -> Start:
    """Load a parent and attach the spec's method to it; several processes load no more than each will hold.

    Raises JobError: ArtefactCorrupt, or InvalidConfig if the method cannot train this parent.
    """
    record = adapter.read(store, parent.path, parent.digest)
    if record is not None and training.method not in ("Full", record.method):
        raise JobError(
            "InvalidConfig",
            f"training.method is {training.method}, but the base {parent.revision} is itself an adapter made by "
            f"{record.method}: set training.method to {record.method} or Full, or take {record.base.revision} as base.",
        )
    merged = ADAPTERS[record.method] if record is not None and training.method == "Full" else None
    if not processes.alone and merged is None:
        return _start_in_parts(store, parent, record, training, seed, processes)
    model, tokenizer = _checkpoint(store, parent.path, parent.digest, record)
    if merged is not None:
        with opened(store, parent.path, parent.digest) as folder:
            merged.load(folder, model)
    METHODS[training.method].attach(model, training, seed)
    if training.method == "Full":
        return Start(model, tokenizer, base=None)
    if record is not None:
        with opened(store, parent.path, parent.digest) as folder:
            put(model, METHODS[training.method].stored(folder, model, training))
    return Start(model, tokenizer, _base(parent, record), rows_of_all(model))


def write(
    store: Path,
    path: str,
    training: TrainingSpec,
    model: CausalModel,
    tokenizer: Tokenizer,
    *,
    base: ArtefactRef | None,
    report: str,
    temperature: float | None = None,
    tensors: TensorStream | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Digest:
    """Commit the artefact of a method and return its digest; if ``path`` in the store is committed already, that one stays.

    ``temperature`` is the default for sampling; if it is None, the base's default applies, or 1. ``tensors`` are
    those of the method, if the model is spread over processes. ``alive`` is called once per file after all of them
    are written.
    """
    with new_folder(store, path, "artefact", alive) as working:
        METHODS[training.method].write(working, model, tokenizer, training, tensors)
        if base is not None:
            write_file(working / ADAPTER, AdapterRecord(method=training.method, base=base).to_json())
        if temperature is not None:
            set_temperature(working, temperature)
        write_file(working / checkpoint_format.REPORT, report)
    return read_manifest(store, path)[1]


def _start_in_parts(
    store: Path,
    parent: ArtefactRef,
    record: AdapterRecord | None,
    training: TrainingSpec,
    seed: int,
    processes: Processes,
) -> Start:
    """Attach a method to the outline of a checkpoint; the result says what will fill in both."""
    folders = ExitStack()
    outline = _outline(store, parent.path, parent.digest, record, processes, folders)
    model, method = outline.model, METHODS[training.method]
    before = {id(weight): name for name, weight in model.weights().items()}
    method.attach(model, training, seed)
    weights = {  # a method may give a weight another name
        name: outline.weights[before[id(weight)]]
        for name, weight in model.weights().items()
        if id(weight) in before
    }
    if record is None:
        added = method.initial(model, seed)
    else:
        adapter_folder = held_together(store, parent.path, parent.digest, processes, folders)
        added = method.stored(adapter_folder, model, training)
    base = None if training.method == "Full" else _base(parent, record)
    return Start(model, outline.tokenizer, base, weights, added, folders)


def _base(parent: ArtefactRef, record: AdapterRecord | None) -> ArtefactRef:
    """Return the checkpoint that an adapter of this parent is trained for."""
    base = parent if record is None else record.base
    return base.model_copy(update={"ancestry": (), "contamination": None})


def _outline(
    store: Path,
    path: str,
    digest: Digest,
    record: AdapterRecord | None,
    processes: Processes,
    folders: ExitStack,
) -> checkpoint_format.Outline:
    """Return the outline of the checkpoint that an artefact is or needs, whose folder stays open in ``folders``."""

    def verified(path: str, digest: Digest) -> checkpoint_format.Outline:
        return checkpoint_format.outline(held_together(store, path, digest, processes, folders))

    if record is None:
        return verified(path, digest)
    with adapter.needing_base(store / path, record):
        return verified(record.base.path, record.base.digest)


def _checkpoint(
    store: Path, path: str, digest: Digest, record: AdapterRecord | None
) -> tuple[CausalModel, Tokenizer]:
    """Load the checkpoint that an artefact is, or that it needs as base."""
    if record is None:
        with opened(store, path, digest) as folder:
            return checkpoint_format.read(folder)
    base = record.base
    with adapter.needing_base(store / path, record), opened(store, base.path, base.digest) as folder:
        return checkpoint_format.read(folder)
