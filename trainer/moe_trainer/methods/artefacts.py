"""Artefacts of any method: from the store to a model, and which goes on from which.

    parent           trained by        starts from                      its artefact
    a checkpoint     Full              its weights                      a checkpoint
    a checkpoint     an adapter        its weights, frozen              an adapter of the parent
    an adapter       the same method   base and adapter as they are     an adapter of the parent's base
    an adapter       Full              base and adapter merged          a checkpoint
    an adapter       another method    refused

So an adapter's base is always a checkpoint, and a chain of refreshes never grows what has to be loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_trainer import artefact, manifest
from moe_trainer.causal_model import CausalModel
from moe_trainer.failure import JobError
from moe_trainer.formats import Digest
from moe_trainer.generation_config import set_temperature
from moe_trainer.job_config import ArtefactRef, MethodName, TrainingSpec
from moe_trainer.methods import adapter
from moe_trainer.methods.adapter import ADAPTER, AdapterRecord
from moe_trainer.methods.expert_bank import ExpertBank
from moe_trainer.methods.full import Full
from moe_trainer.methods.lora import LoRA
from moe_trainer.methods.method import AdapterMethod, Method
from moe_trainer.tokenizer import Tokenizer

ADAPTERS: Mapping[MethodName, AdapterMethod] = {"LoRA": LoRA(), "ExpertBank": ExpertBank()}
METHODS: Mapping[MethodName, Method] = {"Full": Full(), **ADAPTERS}


@dataclass(frozen=True)
class Start:
    """A model that is ready to be trained by a method."""

    model: CausalModel
    tokenizer: Tokenizer
    base: ArtefactRef | None  #: What the artefact will name as its base; None if it will need none.


def load(store: Path, path: str, digest: Digest) -> tuple[CausalModel, Tokenizer]:
    """Return the model of an artefact in a store, in evaluation mode, and its tokenizer.

    Raises JobError (ArtefactCorrupt) unless every byte of it, and of its base, is what their digests say.
    """
    record = adapter.read(store, path, digest)
    model, tokenizer = _checkpoint(store, path, digest, record)
    if record is None:
        return model, tokenizer
    ADAPTERS[record.method].load(store / path, model)
    return model.eval(), tokenizer


def start(store: Path, parent: ArtefactRef, training: TrainingSpec, seed: int) -> Start:
    """Load a parent and let the method of a spec attach to it.

    Raises JobError: ArtefactCorrupt, or InvalidConfig if the method cannot go on from this parent.
    """
    record = adapter.read(store, parent.path, parent.digest)
    if record is not None and training.method not in ("Full", record.method):
        raise JobError(
            "InvalidConfig",
            f"training.method is {training.method}, but the base {parent.revision} is itself an adapter made by "
            f"{record.method}: set training.method to {record.method} or Full, or take {record.base.revision} as base.",
        )
    model, tokenizer = _checkpoint(store, parent.path, parent.digest, record)
    if record is not None and training.method == "Full":
        ADAPTERS[record.method].merge(store / parent.path, model)
    METHODS[training.method].attach(model, training, seed)
    if training.method == "Full":
        return Start(model, tokenizer, base=None)
    if record is not None:
        ADAPTERS[training.method].restore(store / parent.path, model, training)
    base = parent if record is None else record.base
    return Start(model, tokenizer, base.model_copy(update={"ancestry": (), "contamination": None}))


def write(
    folder: Path,
    training: TrainingSpec,
    model: CausalModel,
    tokenizer: Tokenizer,
    *,
    base: ArtefactRef | None,
    report: str,
    temperature: float | None = None,
) -> Digest:
    """Commit the artefact of a method and return its digest; if ``folder`` is committed already, that one stays.

    ``temperature`` is what it is sampled at by default; absent: what its base is, or 1.
    """
    with manifest.new_folder(folder, "artefact") as working:
        METHODS[training.method].write(working, model, tokenizer, training)
        if base is not None:
            (working / ADAPTER).write_text(AdapterRecord(method=training.method, base=base).to_json())
        if temperature is not None:
            set_temperature(working, temperature)
        (working / artefact.REPORT).write_text(report)
    return manifest.read_manifest(folder)[1]


def _checkpoint(
    store: Path, path: str, digest: Digest, record: AdapterRecord | None
) -> tuple[CausalModel, Tokenizer]:
    """Load the checkpoint that an artefact is, or that it needs."""
    if record is None:
        return artefact.load(store / path, digest)
    with adapter.needing_base(store / path, record):
        return artefact.load(store / record.base.path, record.base.digest)
