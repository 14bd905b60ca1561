"""Loads a Decoder from a Hugging Face directory, and saves it as one.

No code from the directory is ever run: a config that asks for some is refused, and so is an architecture that
transformers does not have. The small files are written again as they were.
"""

from collections.abc import Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

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
    logging,
)

from moe_formats.failure import JobError
from moe_trainer import limits, untrusted
from moe_trainer.hugging_face import conversion
from moe_trainer.hugging_face.decoder import CONFIG, Decoder
from moe_trainer.hugging_face.tokenizer import CheckpointTokenizer
from moe_trainer.storage.files import write_file
from moe_trainer.storage.manifest import corrupt
from moe_trainer.untrusted import failing_as
from moe_trainer.weights import model_config, reading, writing
from moe_trainer.weights.reading import RowReader, Stored
from moe_trainer.weights.writing import TensorStream

GENERATION = "generation_config.json"

_ATTENTION = "sdpa"

#: The kinds of layers in which documents can be kept apart and that can decode with rows of a cache.
_LAYERS = {"full_attention", "sliding_attention"}


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
    do not fit its config.
    """
    empty, found = _checked(folder)
    logging.disable_progress_bar()
    with failing_as(lambda what: _unsupported(folder, f"transformers cannot load it ({what})")):
        network: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=empty.config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation=_ATTENTION,
        )
    network = network.to(torch.get_default_device())
    if any(stored.dtype == torch.float32 for stored in found.values()):
        _take_off_disk(network)
    return _decoder(folder, network, found)


@torch.no_grad()
def _take_off_disk(network: PreTrainedModel) -> None:
    """Copy the weights that are the mapped bytes of their file, which somebody may write to after they were verified."""
    for tensor in chain(network.parameters(), network.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def outline_decoder(folder: Path) -> tuple[Decoder, dict[str, RowReader]]:
    """Return the decoder of a directory without the memory of its weights, and what reads some rows of each.

    Everything else is complete: once the weights are filled in, it is what ``load_decoder`` returns. Raises the same.
    """
    network, found = _checked(folder)
    if (folder / GENERATION).exists():
        with failing_as(lambda what: _unsupported(folder, f"{GENERATION} cannot be read ({what})")):
            network.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    _make_tables(network)
    rows = conversion.from_disk(
        network, found, lambda name, rows: reading.read_rows(folder, found[name], rows)
    )
    return _decoder(folder, network, found), {f"network.{name}": read for name, read in rows.items()}


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


def _checked(folder: Path) -> tuple[PreTrainedModel, dict[str, Stored]]:
    """Return a network without memory, and what is stored for it; raises JobError unless the two fit together."""
    found = reading.read_headers(folder)
    config = _config(folder, found)
    _check_generation(folder)
    # An architecture may raise anything for impossible sizes.
    with (
        failing_as(lambda what: _unsupported(folder, f"no network can be made from it ({what})")),
        torch.device("meta"),
    ):
        network: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation=_ATTENTION
        )
    for name in network.all_tied_weights_keys:
        found.pop(name, None)
    reading.check(folder, found, on_disk(network))
    return network, found


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


def _decoder(folder: Path, network: PreTrainedModel, found: Mapping[str, Stored]) -> Decoder:
    files = {name: (folder / name).read_bytes() for name in (CONFIG, GENERATION) if (folder / name).exists()}
    try:
        return Decoder(network, files, {name: stored.dtype for name, stored in found.items()}).eval()
    except ValueError as error:  # a router's sizes do not fit together
        raise _unsupported(folder, f"its routers cannot be computed: {error}") from None


def _config(folder: Path, found: Mapping[str, Stored]) -> PreTrainedConfig:
    """Return the config of a directory; raises JobError (ModelUnsupported) that names the field."""
    try:
        raw = model_config.read(folder)
    except FileNotFoundError:
        raise corrupt(folder, f"it has no {CONFIG}") from None
    except ValueError as error:
        raise corrupt(folder, str(error)) from None
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
    odd = set(getattr(config.get_text_config(), "layer_types", None) or ()) - _LAYERS
    if odd:
        raise _unsupported(
            folder,
            f"layer_types holds {', '.join(sorted(odd))}, but only {', '.join(sorted(_LAYERS))} are supported",
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
