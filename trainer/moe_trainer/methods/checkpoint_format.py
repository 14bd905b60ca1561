"""Checkpoints, the artefacts of method Full: whole models as Hugging Face directories, committed by a manifest.

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json  generation_config.json
    report.json  manifest.json

    checkpoint_format.load(folder, digest) -> (model, tokenizer)     verifies every byte first
    checkpoint_format.read(folder) -> (model, tokenizer)             from a folder that was verified and is open
    checkpoint_format.outline(folder) -> Outline                     the same without weights, which are read by rows
    checkpoint_format.write(store, path, model, tokenizer, report) -> digest

What the files contain is defined by models/preset_format.py for presets, and by hugging_face/directory.py for everything
else. The checkpoints from which an interrupted run continues are another thing (training/checkpoint.py). Never pickle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_formats.format import Digest
from moe_trainer.models import preset_format
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.models.preset_model import Model
from moe_trainer.storage.committed import opened
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.files import write_file
from moe_trainer.storage.manifest import read_manifest
from moe_trainer.text.tokenizer import ByteTokenizer, Tokenizer
from moe_trainer.weights.reading import RowReader
from moe_trainer.weights.writing import TensorStream

REPORT = "report.json"


@dataclass(frozen=True)
class Outline:
    """A model in evaluation mode whose weights take no memory yet (parallel/filling.py).

    Attributes:
        model: the model, whose weights are on torch's meta device.
        tokenizer: its tokenizer.
        weights: reads some rows of each weight, by its name in the model.

    """

    model: CausalModel
    tokenizer: Tokenizer
    weights: Mapping[str, RowReader]


def write(store: Path, path: str, model: CausalModel, tokenizer: Tokenizer, report: str) -> Digest:
    """Commit a checkpoint in a store and return its digest; if ``path`` is committed already, it stays as it is."""
    with new_folder(store, path, "artefact") as working:
        write_files(working, model, tokenizer)
        write_file(working / REPORT, report)
    return read_manifest(store, path)[1]


def write_files(
    folder: Path, model: CausalModel, tokenizer: Tokenizer, tensors: TensorStream | None = None
) -> None:
    """Write weights, config and tokenizer into a folder that is not committed yet.

    ``tensors`` are those of the model, if it is spread over processes.
    """
    tensors = tensors or stream(model)
    tokenizer.save(folder)
    if isinstance(model, Model):
        preset_format.write(folder, model, tensors)
    else:
        from moe_trainer.hugging_face import decoder, directory  # transformers takes seconds to import

        assert isinstance(model, decoder.Decoder)
        directory.save(folder, model, tensors)


def stream(model: CausalModel) -> TensorStream:
    """Return the tensors of a model as they will be on disk, each made when its turn comes."""
    if isinstance(model, Model):
        return preset_format.stream(model)
    from moe_trainer.hugging_face import decoder, directory  # transformers takes seconds to import

    assert isinstance(model, decoder.Decoder)
    return directory.stream(model)


def load(folder: Path, digest: Digest | None) -> tuple[CausalModel, Tokenizer]:
    """Return the model, in evaluation mode, and its tokenizer.

    Models with the presets' architecture and tokenizer are loaded by our own code, all others by transformers.

    Raises JobError: ArtefactCorrupt unless every byte is as the manifest with this ``digest`` says and the files fit
    together (``None`` accepts any manifest, and is for artefacts that have not been named yet); ModelUnsupported or
    TokenizerUnsupported if it cannot be trained here.
    """
    with opened(folder.parent, folder.name, digest) as files:
        return read(files)


def read(folder: Path) -> tuple[CausalModel, Tokenizer]:
    """Return what ``load`` returns; the folder must have been verified and opened (storage/committed.py)."""
    if preset_format.is_preset(folder):
        return preset_format.load(folder), ByteTokenizer()
    from moe_trainer.hugging_face import directory  # transformers takes seconds to import

    return directory.load(folder)


def outline(folder: Path) -> Outline:
    """Return what ``load`` returns, without weights, which are read by rows as long as the folder is open.

    The folder must have been verified and opened (storage/committed.py). Raises the same JobErrors as ``load``.
    """
    if preset_format.is_preset(folder):
        model, weights = preset_format.outline(folder)
        return Outline(model, ByteTokenizer(), weights)
    from moe_trainer.hugging_face import directory  # transformers takes seconds to import

    return Outline(*directory.outline(folder))
