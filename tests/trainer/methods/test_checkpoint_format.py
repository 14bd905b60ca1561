import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.trainer.training.conftest import SMALL, everywhere_random

from moe_formats.failure import JobError
from moe_formats.format import Digest
from moe_trainer.methods import checkpoint_format
from moe_trainer.models import preset_format
from moe_trainer.models.preset_config import ModelConfig, preset
from moe_trainer.models.preset_model import Model, initialise
from moe_trainer.storage.committed import verify
from moe_trainer.storage.manifest import read_manifest, sha256_of_file
from moe_trainer.text.tokenizer import ByteTokenizer


@pytest.fixture
def written(tmp_path: Path, small_model: Model) -> tuple[Path, Digest]:
    folder = tmp_path / "a1"
    return folder, checkpoint_format.write(folder.parent, folder.name, small_model, ByteTokenizer(), "{}")


def test_what_is_loaded_is_what_was_written_bit_for_bit(
    written: tuple[Path, Digest], small_model: Model
) -> None:
    model, tokenizer = checkpoint_format.load(*written)
    ids = torch.tensor([tokenizer.encode("every bit")])
    assert torch.equal(model(ids), small_model(ids))
    assert model.config == SMALL
    assert not model.training


def test_an_artefact_is_never_overwritten(written: tuple[Path, Digest]) -> None:
    other = Model(SMALL)
    initialise(other, seed=1)
    assert checkpoint_format.write(written[0].parent, "a1", other, ByteTokenizer(), "{}") == written[1]
    verify(written[0].parent, "a1", written[1])


def test_tensors_have_the_names_of_qwen3_moe(written: tuple[Path, Digest]) -> None:
    names = set(load_file(written[0] / "model.safetensors"))
    layer = "model.layers.1."
    assert {
        "model.embed_tokens.weight",
        "model.norm.weight",
        layer + "input_layernorm.weight",
        layer + "post_attention_layernorm.weight",
        layer + "self_attn.q_norm.weight",
        layer + "self_attn.o_proj.weight",
        layer + "mlp.gate.weight",
        layer + "mlp.experts.3.gate_proj.weight",
        layer + "mlp.experts.3.down_proj.weight",
    } <= names


def test_what_is_written_for_a_softmax_router_has_not_changed(tmp_path: Path) -> None:
    model = Model(preset("tiny"))
    checkpoint_format.write(tmp_path, "a1", model, ByteTokenizer(), "{}")
    recorded = "c390e86b7b714aedcbdd0712db1df206d4952ef26d6f5ce89ad686a6968aca83"  # by the first release
    assert sha256_of_file(tmp_path / "a1" / "config.json") == recorded


def test_a_sigmoid_router_comes_back_with_its_bias_and_shared_experts(tmp_path: Path) -> None:
    config = ModelConfig(**(SMALL.model_dump() | {"model_type": "glm4_moe", "n_shared_experts": 1}))
    model = everywhere_random(Model(config)).eval()
    found, _ = checkpoint_format.load(
        tmp_path / "a1", checkpoint_format.write(tmp_path, "a1", model, ByteTokenizer(), "{}")
    )
    assert found.config == config
    assert found.weights().keys() == model.weights().keys()
    assert "layers.1.mlp.bias_E" in model.weights()
    for name, weight in model.weights().items():
        assert torch.equal(found.weights()[name], weight), name


def test_a_bias_that_the_architecture_has_no_place_for_is_refused(small_model: Model) -> None:
    small_model.layers[1].mlp.bias_E = torch.zeros(4)
    with pytest.raises(
        ValueError,
        match=r"layers\.1\.mlp\.bias_E cannot be stored in a checkpoint of qwen3_moe: set model_type to glm4",
    ):
        dict(checkpoint_format.stream(small_model))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "report.json"])
def test_one_altered_byte_in_any_file_is_found(written: tuple[Path, Digest], name: str) -> None:
    path = written[0] / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(JobError, match=f"ArtefactCorrupt.*{name}") as failed:
        checkpoint_format.load(*written)
    assert not failed.value.retryable


def test_a_truncated_or_missing_file_is_found(written: tuple[Path, Digest]) -> None:
    weights = written[0] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(JobError, match=r"ArtefactCorrupt.*model.safetensors"):
        checkpoint_format.load(*written)
    weights.unlink()
    with pytest.raises(JobError, match=r"ArtefactCorrupt.*model.safetensors is missing"):
        checkpoint_format.load(*written)


def test_another_manifest_than_the_one_asked_for_is_refused(written: tuple[Path, Digest]) -> None:
    folder, digest = written
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "report.json").write_text("{ }")
    (folder / "manifest.json").write_text(json.dumps(manifest | {"files": {}}))
    with pytest.raises(JobError, match=f"ArtefactCorrupt.*not {digest} as expected"):
        checkpoint_format.load(folder, digest)


def test_a_folder_without_a_manifest_does_not_exist(written: tuple[Path, Digest]) -> None:
    (written[0] / "manifest.json").unlink()
    with pytest.raises(JobError, match=r"ArtefactCorrupt.*never committed"):
        checkpoint_format.load(*written)


def test_a_manifest_that_names_files_elsewhere_is_refused(written: tuple[Path, Digest]) -> None:
    manifest = json.loads((written[0] / "manifest.json").read_text())
    manifest["files"]["../outside"] = manifest["files"]["config.json"]
    (written[0] / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(JobError, match=r"ArtefactCorrupt.*outside of it"):
        read_manifest(written[0].parent, "a1")


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path: Path, small_model: Model) -> None:
    for change in ("shape", "name"):
        folder = tmp_path / change
        tensors = dict(checkpoint_format.stream(small_model))
        if change == "shape":
            tensors["model.norm.weight"] = torch.ones(31)
        else:
            tensors["model.odd.weight"] = tensors.pop("model.norm.weight")
        with pytest.raises(JobError, match=r"ArtefactCorrupt.*(model.norm.weight|model.odd.weight)"):
            preset_format.set_weights(small_model, tensors, folder)


def test_another_tokenizer_is_refused(
    tmp_path: Path, small_model: Model, written: tuple[Path, Digest]
) -> None:
    path = written[0] / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": {"type": "WordLevel"}}))
    with pytest.raises(JobError, match="TokenizerUnsupported"):
        ByteTokenizer.load(written[0])


def test_pickled_weights_are_not_even_opened(tmp_path: Path, written: tuple[Path, Digest]) -> None:
    folder = written[0]
    pickled = folder / "pytorch_model.bin"
    pickled.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(
        JobError, match=r"ArtefactCorrupt.*holds pytorch_model.bin, which its manifest does not"
    ):
        checkpoint_format.load(*written)
    pickled.unlink()
    checkpoint_format.load(*written)
    pickled.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(JobError, match="ArtefactCorrupt"):
        checkpoint_format.load(*written)
