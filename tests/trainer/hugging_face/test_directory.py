"""Hugging Face directories: read, refused, and written so that nothing changes that was not trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from moe_formats.failure import JobError
from moe_trainer.hugging_face import directory
from moe_trainer.hugging_face.decoder import Decoder
from moe_trainer.methods import checkpoint_format
from moe_trainer.models import preset_format
from moe_trainer.models.preset_model import Model
from moe_trainer.weights import reading

from .conftest import CONFIGS, ids, network, write_checkpoint


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def loaded(folder: Path) -> Decoder:
    return directory.load(folder)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_what_was_not_trained_is_written_bit_for_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", name, dtype=dtype, shards="30KB")
    decoder, tokenizer = directory.load(source)
    assert all(parameter.dtype == torch.float32 for parameter in decoder.parameters())
    (tmp_path / "copy").mkdir()
    directory.save(tmp_path / "copy", decoder, shard_bytes=20_000)
    tokenizer.save(tmp_path / "copy")
    before, after = tensors(source), tensors(tmp_path / "copy")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert after[key].dtype == tensor.dtype and torch.equal(after[key], tensor), key
    for file in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "copy" / file).read_bytes() == (source / file).read_bytes()
    shards = [path.stat().st_size for path in (tmp_path / "copy").glob("model-*-of-*.safetensors")]
    index = json.loads((tmp_path / "copy" / reading.INDEX).read_text())
    assert len(shards) == len(set(index["weight_map"].values())) > 1
    assert index["metadata"]["total_size"] == sum(t.numel() * t.itemsize for t in before.values())


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_loads_what_was_trained_with_equal_logits(name: str, tmp_path: Path) -> None:
    decoder, tokenizer = directory.load(write_checkpoint(tmp_path / "source", name))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    digest = checkpoint_format.write(tmp_path, "a1", decoder, tokenizer, "{}")
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path / "a1", output_loading_info=True)
    assert not any(report.values())
    torch.testing.assert_close(theirs(ids()).logits, decoder(ids()), atol=1e-5, rtol=1e-4)
    ours, _ = checkpoint_format.load(tmp_path / "a1", digest)
    assert torch.equal(ours(ids()), decoder(ids()))
    assert GenerationConfig.from_pretrained(tmp_path / "a1").eos_token_id == 1
    assert AutoTokenizer.from_pretrained(tmp_path / "a1").encode("alpha") == tokenizer.encode("alpha")


def test_each_tensor_keeps_the_type_in_which_it_was_stored(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", "glm4-moe", dtype=torch.bfloat16)
    mixed = tensors(source)
    bias = "model.layers.1.mlp.gate.e_score_correction_bias"
    mixed[bias] = torch.randn(8) * 1e-3
    save_file(mixed, source / reading.WHOLE, metadata={"format": "pt"})
    decoder = loaded(source)
    assert any(torch.equal(tensor, mixed[bias]) for tensor in decoder.weights().values())
    (tmp_path / "copy").mkdir()
    directory.save(tmp_path / "copy", decoder)
    for name, tensor in tensors(tmp_path / "copy").items():
        assert tensor.dtype == mixed[name].dtype and torch.equal(tensor, mixed[name])


def test_a_preset_is_loaded_without_transformers_and_any_other_model_with_it(tmp_path: Path) -> None:
    assert not preset_format.is_preset(write_checkpoint(tmp_path / "qwen", "qwen3-moe"))
    from moe_trainer.models.preset_config import preset
    from moe_trainer.text.tokenizer import ByteTokenizer

    digest = checkpoint_format.write(tmp_path, "tiny", Model(preset("tiny")), ByteTokenizer(), "{}")
    assert isinstance(checkpoint_format.load(tmp_path / "tiny", digest)[0], Model)


Change = Callable[[dict[str, torch.Tensor]], Any]

BROKEN: dict[str, tuple[str, Change, str]] = {
    "missing": ("llama", lambda t: t.pop("model.norm.weight"), r"asks for model\.norm\.weight"),
    "missing in a stack": (
        "qwen3-moe",
        lambda t: t.pop("model.layers.1.mlp.experts.2.up_proj.weight"),
        r"asks for model\.layers\.1\.mlp\.experts\.2\.up_proj\.weight, which its weights lack",
    ),
    "extra": (
        "mixtral",
        lambda t: t.update({"model.odd": torch.zeros(2)}),
        r"hold model\.odd, for which its config\.json has no place",
    ),
    "extra in a stack": (
        "olmoe",
        lambda t: t.update({"model.layers.0.mlp.experts.4.up_proj.weight": torch.zeros(24, 32)}),
        r"hold model\.layers\.0\.mlp\.experts\.4\.up_proj\.weight",
    ),
    "misshapen": (
        "llama",
        lambda t: t.update({"model.norm.weight": torch.zeros(31)}),
        r"model\.norm\.weight has shape \[31\], not \[32\]",
    ),
    "misshapen in a stack": (
        "qwen3-moe",
        lambda t: t.update({"model.layers.1.mlp.experts.2.up_proj.weight": torch.zeros(15, 32)}),
        r"experts\.2\.up_proj\.weight has shape \[15, 32\], not \[16, 32\]",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_weights_that_do_not_fit_their_config_are_named(case: str, tmp_path: Path) -> None:
    name, change, message = BROKEN[case]
    source = write_checkpoint(tmp_path / "source", name)
    found = tensors(source)
    change(found)
    save_file(found, source / reading.WHOLE, metadata={"format": "pt"})
    with pytest.raises(JobError, match=f"ArtefactCorrupt.*{message}"):
        loaded(source)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ((1 << 62).to_bytes(8, "little"), "says that its header has 4611686018427387904 bytes"),
        (b"\x02", "is not a safetensors file"),
        (b"\x02\0\0\0\0\0\0\0[]", "cannot be read"),
        (b"\x04\0\0\0\0\0\0\0nope", "cannot be read"),
    ],
)
def test_a_header_that_cannot_be_is_refused_before_it_is_read(
    header: bytes, message: str, tmp_path: Path
) -> None:
    source = write_checkpoint(tmp_path / "source", "llama")
    (source / reading.WHOLE).write_bytes(header)
    with pytest.raises(JobError, match=f"ArtefactCorrupt.*model.safetensors.*{message}"):
        loaded(source)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 4]}, "lies at"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "in 0 bytes"),
        ({"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}, "convert quantized weights first"),
        ({"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}, "not a natural number"),
    ],
)
def test_a_tensor_that_cannot_lie_where_the_header_says_is_refused(
    entry: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = write_checkpoint(tmp_path / "source", "llama")
    text = json.dumps({"model.norm.weight": entry}).encode()
    (source / reading.WHOLE).write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(JobError, match=f"header of model.safetensors.*{message}"):
        loaded(source)


def test_an_index_and_its_shards_have_to_fit_together(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", "llama", shards="30KB")
    index = json.loads((source / reading.INDEX).read_text())
    places = index["weight_map"]
    for change, message in (
        ({"model.norm.weight": "../outside.safetensors"}, "names '../outside.safetensors'"),
        ({"model.norm.weight": "model-00009-of-00009.safetensors"}, r"model-00009.* is missing"),
        ({"model.norm.weight": places["model.embed_tokens.weight"]}, r"holds|lacks model\.norm"),
        ({"model.odd": places["model.norm.weight"]}, r"lacks model\.odd"),
    ):
        (source / reading.INDEX).write_text(json.dumps({"weight_map": places | change}))
        with pytest.raises(JobError, match=f"ArtefactCorrupt.*{message}"):
            loaded(source)
    (source / reading.INDEX).write_text("[]")
    with pytest.raises(JobError, match="not JSON with a weight_map"):
        loaded(source)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "weights.ckpt"])
def test_pickled_weights_are_refused_unopened(name: str, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", "llama")
    (source / reading.WHOLE).unlink()
    (source / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(JobError, match=f"are pickled .{name}.*convert them to safetensors"):
        loaded(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"auto_map": {"AutoModel": "modeling.Odd"}}, "auto_map asks for code .* never run"),
        ({"model_type": "odd"}, "model_type is 'odd', which this version of transformers does not know"),
        ({"model_type": None}, "model_type is None"),
        ({"model_type": "t5"}, "not a decoder that predicts the next token"),
        ({"model_type": "vit"}, "not a decoder that predicts the next token"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantized weights cannot be trained"),
        ({"num_attention_heads": "many"}, "refuses it"),
    ],
)
def test_a_config_that_is_no_decoder_of_transformers_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = write_checkpoint(tmp_path / "source", "llama")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | change))
    (source / "modeling.py").write_text("raise SystemExit('this ran')")
    with pytest.raises(JobError, match=f"ModelUnsupported.*config.json: .*{message}"):
        loaded(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts_per_tok": 9}, "a token uses 1 to 4 in-layer experts"),
        ({"num_attention_heads": 0}, r"no network can be made from it \(ZeroDivisionError"),
    ],
)
def test_sizes_that_cannot_be_are_refused_for_good(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = write_checkpoint(tmp_path / "source", "qwen3-moe")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(JobError, match=rf"ModelUnsupported.*{message}"):
        loaded(source)


def test_what_is_wrong_with_an_imported_checkpoint_is_corrected_there(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "imports" / "0123", "llama")
    (source / "model.safetensors").write_bytes(b"")
    with pytest.raises(
        JobError, match=r"BaseUnfit: the checkpoint at base\.path.*correct this one and write its new"
    ):
        loaded(source)


def test_layers_that_documents_cannot_be_kept_apart_in_are_refused(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", "qwen3")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"layer_types": ["full_attention", "conv"]}))
    with pytest.raises(JobError, match=r"ModelUnsupported.*(layer_types|refuses it)"):
        loaded(source)


def test_a_tokenizer_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    from .tokenizers_made_here import metaspace, write

    source = write_checkpoint(tmp_path / "source", "llama")
    write(source, metaspace())
    with pytest.raises(JobError, match=r"TokenizerUnsupported.*ids up to 3\d\d, but .* vocab_size is 300"):
        loaded(source)


def test_the_networks_of_the_tests_are_no_copies_of_each_other() -> None:
    assert not torch.equal(network("llama")(ids()).logits, network("mistral")(ids()).logits)
