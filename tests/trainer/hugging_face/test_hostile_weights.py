"""Weights and configs that ask for more than there is: each is an error that says why, before anything is made."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from moe_formats.failure import JobError
from moe_trainer import limits
from moe_trainer.hugging_face import directory
from moe_trainer.methods import bank_format, checkpoint_format, peft_format
from moe_trainer.models import preset_format
from moe_trainer.models.generation_config import temperature_of
from moe_trainer.models.preset_config import preset
from moe_trainer.models.preset_model import Model
from moe_trainer.text.tokenizer import ByteTokenizer
from moe_trainer.weights import reading

from .conftest import write_checkpoint


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source", "llama")


def header(path: Path, entries: dict[str, Any], data: int = 0) -> None:
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(data))


def entry(shape: list[Any], begin: int = 0, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + 4 * math.prod(shape)]}


HEADERS: dict[str, tuple[dict[str, Any], int, str]] = {
    "a million dimensions": (
        {"w": {"dtype": "F32", "shape": [2] * 1_000_000, "data_offsets": [0, 4]}},
        4,
        "a tensor has 1,000,000 dimensions; the limit is 8",
    ),
    "a long name": (
        {"a" * 100_000: entry([1])},
        4,
        "of tensor 'a*'… has 100,000 characters; the limit is 512",
    ),
    "tensors at the same place": (
        {"a": entry([2]), "b": entry([2])},
        8,
        "a tensor begins at byte 0, not where the one before it ends",
    ),
    "bytes of no tensor": ({"a": entry([2])}, 16, "8 bytes after the last tensor belong to none"),
    "a gap": ({"a": entry([2], begin=8)}, 16, "begins at byte 8, not where the one before it ends"),
    "a size that is a truth value": ({"a": entry([True])}, 4, "is not a natural number"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_asks_for_too_much_is_refused(case: str, source: Path) -> None:
    entries, data, message = HEADERS[case]
    header(source / reading.WHOLE, entries, data)
    started = time.process_time()
    with pytest.raises(JobError, match=f"ArtefactCorrupt.*header of model.safetensors.*{message}"):
        directory.load(source)
    assert time.process_time() - started < 20


@pytest.mark.timeout(60)
def test_a_header_of_a_million_tensors_is_not_parsed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = '"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = ("{" + ",".join(one % number for number in range(1_000_000)) + "}").encode()
    (source / reading.WHOLE).write_bytes(len(text).to_bytes(8, "little") + text)
    started = time.process_time()
    with pytest.raises(
        JobError, match=r"header of model.safetensors .* it holds 7,000,\d+ values; the limit is 4,000,000"
    ):
        directory.load(source)
    assert time.process_time() - started < 10
    header(source / reading.WHOLE, {f"t{number}": entry([0]) for number in range(60)})
    monkeypatch.setattr(limits, "TENSORS", 50)
    with pytest.raises(JobError, match="it lists 60 tensors; the limit is 50"):
        directory.load(source)


def change_config(folder: Path, **change: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1,000,000: it must be a number from 0 to 1,024"),
        ({"num_hidden_layers": 1000}, r"num_hidden_layers is 1,000, but the weights hold only \d+ tensors"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1: it must be"),
        ({"num_hidden_layers": True}, "num_hidden_layers is true: it must be"),
        ({"hidden_size": 10**9}, "hidden_size is 1,000,000,000: it must be"),
        (
            {"hidden_size": 65536},
            "hidden_size is 65,536, but no tensor of the weights has a dimension above 300",
        ),
        ({"vocab_size": 10**9}, "vocab_size is 1,000,000,000: it must be"),
        ({"vocab_size": 1_000_000}, "vocab_size is 1,000,000, but no tensor"),
        ({"num_experts": 4000}, "num_experts is 4,000, but no tensor"),
        ({"num_attention_heads": 10**12}, "num_attention_heads is 1,000,000,000,000: it must be"),
        ({"max_position_embeddings": 10**12}, "max_position_embeddings is 1,000,000,000,000: it must be"),
        ({"num_nextn_predict_layers": 10**10}, "num_nextn_predict_layers is 10,000,000,000; the limit"),
        ({"rope_parameters": {"num_things": 10**20}}, r"num_things is 1e\+20; the limit"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": {"__float__": "NaN"}}},
            "a number is 'NaN', but numbers must be finite",
        ),
        ({"model_type": ["llama"]}, r"model_type is \['llama'\], which"),
    ],
)
def test_a_config_that_asks_for_more_than_there_is_is_refused(
    change: dict[str, Any], message: str, source: Path
) -> None:
    change_config(source, **change)
    started = time.process_time()
    with pytest.raises(JobError, match=f"ModelUnsupported.*config.json: {message}") as error:
        directory.load(source)
    assert time.process_time() - started < 20 and not error.value.retryable


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"rope_theta": NaN}', "config.json: it is not JSON: NaN is not a finite number"),
        ('{"rope_theta": 1e999}', "1e999 is not a finite number"),
        ('{"a": ' * 100 + "1" + "}" * 100, "config.json: it is nested too deeply: the limit is 64 levels"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"a": "' + "a" * (17 << 20) + '"}', "config.json: it has more than 16,777,216 bytes"),
        ("[]", "config.json is not a JSON object"),
    ],
)
def test_a_config_that_is_too_large_or_too_deep_is_refused(text: str, message: str, source: Path) -> None:
    (source / "config.json").write_text(text)
    with pytest.raises(JobError, match=f"ArtefactCorrupt.*{message}"):
        directory.load(source)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"temperature": NaN}', '{"a": "' + "a" * (17 << 20) + '"}'])
def test_a_generation_config_that_cannot_be_is_refused(text: str, source: Path) -> None:
    (source / "generation_config.json").write_text(text)
    with pytest.raises(JobError, match=r"ModelUnsupported.*generation_config\.json beside it: "):
        directory.load(source)
    assert temperature_of(source) == 1.0


def test_ids_in_a_generation_config_that_no_token_has_are_ignored(source: Path) -> None:
    ids = {"eos_token_id": [1, 10**12, -1], "bos_token_id": -5, "pad_token_id": 10**12}
    (source / "generation_config.json").write_text(json.dumps(ids))
    decoder, _ = directory.load(source)
    assert decoder.end_ids == {1}
    assert decoder.never_ids == set(range(decoder.tokens, decoder.vocab_size))


def test_an_index_that_lists_too_much_is_refused(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TENSORS", 50)
    places = {f"t{number}": "model.safetensors" for number in range(60)}
    (source / reading.INDEX).write_text(json.dumps({"weight_map": places}))
    with pytest.raises(JobError, match=r"index\.json lists 60 tensors; the limit is 50"):
        directory.load(source)
    (source / reading.INDEX).write_text("[" * 100_000)
    with pytest.raises(JobError, match=r"index\.json: it is nested too deeply"):
        directory.load(source)


def test_a_preset_that_asks_for_more_than_its_weights_takes_no_memory(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    digest = checkpoint_format.write(folder.parent, folder.name, Model(preset("tiny")), ByteTokenizer(), "{}")
    assert isinstance(checkpoint_format.load(folder, digest)[0], Model)
    for change, message in (
        ({"hidden_size": 65536}, "hidden_size is 65,536, but no tensor"),
        ({"num_hidden_layers": 1000}, "num_hidden_layers is 1,000, but the weights"),
        ({"num_experts": 250}, "asks for 500 in-layer experts, but it has"),
        ({"moe_intermediate_size": 65536}, r"has shape \[128, 128\], not \[65536, 128\]"),
        ({"rope_theta": 1e308 * 10}, "config.json: .*finite number"),
    ):
        config = preset("tiny").to_hugging_face() | change
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(JobError, match=f"ArtefactCorrupt.*{message}"):
            preset_format.load(folder)


def test_an_adapter_that_asks_for_a_higher_rank_than_it_has_takes_no_memory(tmp_path: Path) -> None:
    save_file({"base_model.model.q.lora_A.weight": torch.zeros(8, 4)}, tmp_path / peft_format.WEIGHTS)
    config = {"r": 60_000, "lora_alpha": 16, "target_modules": ["q"], "target_parameters": []}
    for change, message in (
        ({}, "r in its adapter_config.json is 60,000, but its .* holds updates of rank 8"),
        ({"r": 10**6}, "adapter_config.json: r: Input should be less than or equal to 65536"),
        ({"lora_alpha": 10**400}, "adapter_config.json: lora_alpha"),
        ({"target_modules": ["q"] * 200_000}, "target_modules: List should have at most 100000 items"),
    ):
        (tmp_path / peft_format.CONFIG).write_text(json.dumps(config | change))
        with pytest.raises(JobError, match=f"ArtefactCorrupt.*{message}"):
            peft_format.read_config(tmp_path)


def test_a_bank_of_more_experts_than_there_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / bank_format.CONFIG).write_text(json.dumps({"experts": 10**18, "layers": 2}))
    with pytest.raises(
        JobError, match=r"ArtefactCorrupt.*bank_config\.json: experts: .*less than or equal to 4096"
    ):
        bank_format.read_config(tmp_path)
