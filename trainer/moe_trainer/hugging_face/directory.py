"""Loads a Decoder from a Hugging Face directory, and saves it as one.

No code from the directory is ever run: a config that asks for some is refused, and so is an architecture that
transformers does not have. The small files are written again as they were.
"""

from collections.abc import Mapping
from functools import partial
from inspect import signature
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from moe_formats.failure import JobError
from moe_trainer import limits, untrusted
from moe_trainer.hugging_face import conversion, ties
from moe_trainer.hugging_face.decoder import CONFIG, Decoder
from moe_trainer.hugging_face.tokenizer import CheckpointTokenizer
from moe_trainer.models.causal_model import parameter_names
from moe_trainer.parallel.filling import fill
from moe_trainer.parallel.processes import ALONE
from moe_trainer.storage.files import write_file
from moe_trainer.storage.manifest import unfit
from moe_trainer.untrusted import failing_as
from moe_trainer.weights import model_config, reading, writing
from moe_trainer.weights.reading import RowReader, Stored
from moe_trainer.weights.writing import TensorStream

GENERATION = "generation_config.json"

#: The kinds of layers in which documents can be kept apart and that can decode with rows of a cache.
_LAYERS = {
    "layer_types": {"full_attention", "sliding_attention"},
    "attention_layers": {"global"},  # GPT-Neo's local layers need all sequences at the same place
}

#: What a network is called with, besides tokens.
_ARGUMENTS = {"attention_mask", "logits_to_keep", "past_key_values", "position_ids"}


def load(folder: Path) -> tuple[Decoder, CheckpointTokenizer]:
    """Return the decoder of a directory, in evaluation mode, and its tokenizer.

    Raises JobError: what load_decoder and CheckpointTokenizer.load raise, and TokenizerUnsupported if the
    tokenizer has ids for which the model has no embedding.
    """
    tokenizer = CheckpointTokenizer.load(folder)
    return _matched(load_decoder(folder), tokenizer), tokenizer


def outline(folder: Path) -> tuple[Decoder, CheckpointTokenizer, dict[str, RowReader]]:
    """Return what ``load`` returns, but without weights, and what reads rows of each weight; raises the same."""
    tokenizer = CheckpointTokenizer.load(folder)
    decoder, weights = outline_decoder(folder)
    return _matched(decoder, tokenizer), tokenizer, weights


def _matched(decoder: Decoder, tokenizer: CheckpointTokenizer) -> Decoder:
    if tokenizer.vocab_size > decoder.vocab_size:
        raise JobError(
            "TokenizerUnsupported",
            f"the tokenizer has ids up to {tokenizer.vocab_size - 1}, but the model's vocab_size is "
            f"{decoder.vocab_size}: they are from different checkpoints. Take both from the same one.",
        )
    decoder.tokens = tokenizer.vocab_size
    decoder.document_end = tokenizer.eos_id
    tokenizer.end_ids = decoder.end_ids
    return decoder


def load_decoder(folder: Path) -> Decoder:
    """Return the decoder of a directory, in evaluation mode, in single precision.

    Raises JobError: ModelUnsupported if it is not a decoder that can be trained here, ArtefactCorrupt if its weights
    do not fit its config, or BaseUnfit if it is an imported checkpoint.
    """
    decoder, weights = outline_decoder(folder)
    fill(decoder, ALONE, weights.items())
    return decoder


def outline_decoder(folder: Path) -> tuple[Decoder, dict[str, RowReader]]:
    """Return the decoder of a directory without the memory of its weights, and what reads some rows of each.

    Everything else is complete: once the weights are filled in, it is what ``load_decoder`` returns. Raises the same.
    """
    stored = reading.read_headers(folder)
    network = _network(folder, stored)
    dtypes, rows = _fitted(folder, network, stored)
    if (folder / GENERATION).exists():
        with failing_as(lambda what: _unsupported(folder, f"{GENERATION} cannot be read ({what})")):
            network.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    _make_tables(network)
    decoder = _decoder(folder, network, dtypes)
    tensors, names = network.state_dict(keep_vars=True), parameter_names(decoder)
    return decoder, {
        names.get(
            id(tensors[name]), f"network.{name}"
        ): read  # a tied weight is named where the network has it first
        for name, read in rows.items()
    }


def save(
    folder: Path,
    decoder: Decoder,
    tensors: TensorStream | None = None,
    shard_bytes: int = writing.SHARD_BYTES,
) -> None:
    """Write a decoder's weights and configs as transformers reads them; ``tensors`` is what ``stream`` returns."""
    tensors = tensors or stream(decoder)
    writing.save_sharded(folder, tensors, _types(tensors, decoder.dtypes), shard_bytes)
    for name, content in decoder.files.items():
        write_file(folder / name, content)


def _types(tensors: TensorStream, stored: Mapping[str, torch.dtype]) -> dict[str, torch.dtype]:
    """Return the type of each tensor on disk; a new one gets the type of those that it is stacked with."""
    types: dict[str, torch.dtype] = {}
    for group in tensors.outlines():
        known = [stored[name] for name in group if name in stored]
        types |= {
            name: stored.get(name, known[0] if known else tensor.dtype) for name, tensor in group.items()
        }
    return types


def stream(decoder: Decoder) -> TensorStream:
    """Return the tensors of a decoder as they will be on disk, each made when its turn comes."""
    tensors = {name.removeprefix("network."): tensor for name, tensor in decoder.weights().items()}
    return TensorStream(
        [
            {name: tensors[name] for name in group}
            for group in conversion.groups(decoder.network, list(tensors))
        ],
        partial(conversion.to_disk, decoder.network),
    )


def on_disk(network: PreTrainedModel) -> dict[str, Tensor]:
    """Return a network's tensors as they are on disk, where each in-layer expert has tensors of its own."""
    return conversion.to_disk(network, conversion.stored_tensors(network))


def _network(folder: Path, stored: Mapping[str, Stored]) -> PreTrainedModel:
    """Return the network of a directory without memory; raises JobError if it cannot be trained here."""
    config = _config(folder, stored)
    _check_generation(folder)
    # An architecture may raise anything for impossible sizes.
    with (
        failing_as(lambda what: _unsupported(folder, f"no network can be made from it ({what})")),
        torch.device("meta"),
    ):
        try:
            network = _with_attention("sdpa", config)
        except ValueError as error:
            if "scaled_dot_product_attention" not in str(error):
                raise
            network = _with_attention("eager", config)  # some architectures, such as Gemma 2, have only this
    if lacking := _ARGUMENTS - signature(network.forward).parameters.keys():
        raise _unsupported(
            folder,
            f"{type(network).__name__} of transformers does not take {', '.join(sorted(lacking))}, which decoding and "
            "documents that do not see each other need",
        )
    return network


def _with_attention(implementation: str, config: PreTrainedConfig) -> PreTrainedModel:
    network: PreTrainedModel = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation=implementation
    )
    return network


def _fitted(
    folder: Path, network: PreTrainedModel, stored: Mapping[str, Stored]
) -> tuple[dict[str, torch.dtype], dict[str, RowReader]]:
    """Tie a network's weights as the directory holds them; return their types as stored, and what reads their rows.

    The types are by the names that the tensors have when they are written again, the readers by those in the network.
    Raises JobError unless the two fit together.
    """

    def read(name: str, rows: slice) -> Tensor:
        return reading.read_rows(folder, stored[name], rows)

    def same(one: str, other: str) -> bool:
        shape = stored[one].shape
        rows = shape[0] if shape else 1
        return shape == stored[other].shape and ties.equal(partial(read, one), partial(read, other), rows)

    found, without = conversion.places(network, stored)
    ignored = {name for name, target in without.items() if conversion.is_ignored(network, target)}
    places = ties.settle(network, found, same)
    tied = found.keys() - places.keys()
    expected = on_disk(network)
    names = conversion.names_on_disk(network, places, expected)
    fitting = {names.get(name, name): stored[name] for name in stored if name not in ignored | tied}
    reading.check(folder, fitting, expected)
    if ignored:
        print(
            f"{folder.name}: {len(ignored)} tensors, such as {min(ignored)}, are not used by {type(network).__name__} "
            "of transformers and are left out",
            flush=True,
        )
    rows = conversion.from_disk(network, places, stored, read)
    return {name: entry.dtype for name, entry in fitting.items()}, rows


def _make_tables(network: PreTrainedModel) -> None:
    """Give an outline the tensors that follow from its config, such as rotary frequencies, and are in no file."""
    named = dict(network.named_non_persistent_buffers())
    for module_name, module in network.named_modules():
        own = [name for name, _ in module.named_buffers(recurse=False) if f"{module_name}.{name}" in named]
        for name in own:
            setattr(module, name, torch.empty_like(getattr(module, name), device="cpu"))
        module._is_hf_initialized = not own
    network.initialize_weights()
    for name in named:
        module, _, last = name.rpartition(".")
        tables = network.get_submodule(module)
        setattr(tables, last, getattr(tables, last).to(torch.get_default_device()))


def _decoder(folder: Path, network: PreTrainedModel, dtypes: Mapping[str, torch.dtype]) -> Decoder:
    files = {name: (folder / name).read_bytes() for name in (CONFIG, GENERATION) if (folder / name).exists()}
    try:
        return Decoder(network, files, dtypes).eval()
    except ValueError as error:  # a router's sizes do not fit together
        raise _unsupported(folder, f"its routers cannot be computed: {error}") from None


def _config(folder: Path, found: Mapping[str, Stored]) -> PreTrainedConfig:
    """Return the config of a directory; raises JobError (ModelUnsupported) that names the field."""
    try:
        raw = model_config.read(folder)
    except FileNotFoundError:
        raise unfit(folder, f"it has no {CONFIG}") from None
    except ValueError as error:
        raise unfit(folder, str(error)) from None
    try:
        model_config.check_sizes(raw)
        model_config.check_weights(raw, found)
    except ValueError as error:
        raise _unsupported(folder, str(error)) from None
    if raw.get("auto_map"):
        raise _unsupported(folder, "auto_map asks for code in the directory itself, which is never run")
    if raw.get("quantization_config"):
        raise _unsupported(
            folder, "quantization_config: quantized weights cannot be trained. Take the checkpoint in 16 bits"
        )
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise _unsupported(
            folder, f"model_type is {kind!r:.100}, which this version of transformers does not know"
        )
    with failing_as(lambda what: _unsupported(folder, f"model_type {kind!r} refuses it: {what}")):
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or getattr(config, "is_encoder_decoder", False):
        raise _unsupported(
            folder, f"model_type is {kind!r}, which is not a decoder that predicts the next token"
        )
    for field, known in _LAYERS.items():
        odd = set(getattr(config.get_text_config(), field, None) or ()) - known
        if odd:
            raise _unsupported(
                folder,
                f"{field} holds {', '.join(sorted(odd))}, but only {', '.join(sorted(known))} are supported",
            )
    return config


def _check_generation(folder: Path) -> None:
    """Raise JobError (ModelUnsupported) for a generation config that transformers should not read."""
    if not (folder / GENERATION).exists():
        return
    try:
        untrusted.parse(untrusted.read(folder / GENERATION, limits.CONFIG_BYTES))
    except ValueError as error:
        raise _unsupported(folder, f"{GENERATION} beside it: {error}") from None


def _unsupported(folder: Path, what: str) -> JobError:
    return JobError("ModelUnsupported", f"{folder.name}/{CONFIG}: {what}.")
