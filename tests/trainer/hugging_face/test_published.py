"""Checkpoints as they are published: tensors that nobody uses, older names, ties that do not hold."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from moe_formats.failure import JobError
from moe_trainer.hugging_face import directory
from moe_trainer.hugging_face.decoder import Decoder
from moe_trainer.parallel.filling import is_outline
from moe_trainer.weights import reading

from .architectures_made_here import tiny
from .conftest import ids

CLOSE = {"atol": 1e-5, "rtol": 1e-4}
Tensors = dict[str, Tensor]


def published(folder: Path, kind: str, change: Callable[[Tensors], Tensors | None], **config: object) -> Path:
    """Write a checkpoint whose tensors on disk were changed."""
    made = tiny(kind)
    made.update(config)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(made).to(torch.bfloat16).save_pretrained(folder)
    tensors = load_file(folder / reading.WHOLE)
    save_file(change(tensors) or tensors, folder / reading.WHOLE, metadata={"format": "pt"})
    return folder


def loaded_as_by_transformers(folder: Path) -> Decoder:
    """Load a checkpoint, whole and by parts, with the logits of transformers; return the decoder."""
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    decoder = directory.load_decoder(folder)
    outline, readers = directory.outline_decoder(folder)
    assert is_outline(outline)
    weights = decoder.weights()
    assert readers.keys() == weights.keys() == outline.weights().keys()
    for name, weight in weights.items():
        assert torch.equal(readers[name](slice(None)).float(), weight.detach().float()), name
    with torch.no_grad():
        torch.testing.assert_close(decoder(ids()), theirs(ids()).logits, **CLOSE)
    return decoder


def written(decoder: Decoder, folder: Path) -> Tensors:
    folder.mkdir()
    directory.save(folder, decoder)
    return load_file(folder / reading.WHOLE)


def another_head(tensors: Tensors) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0).contiguous()


def the_same_head(tensors: Tensors) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()


def only_the_head(tensors: Tensors) -> None:
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")


@pytest.mark.parametrize(("change", "heads"), [(another_head, 2), (the_same_head, 1), (only_the_head, 1)])
def test_weights_are_tied_as_the_checkpoint_holds_them(
    change: Callable[[Tensors], None], heads: int, tmp_path: Path
) -> None:
    source = published(tmp_path / "source", "qwen3", change, tie_word_embeddings=True)
    decoder = loaded_as_by_transformers(source)
    embeddings = [name for name in decoder.weights() if "embed_tokens" in name or "lm_head" in name]
    assert len(embeddings) == heads
    after = written(decoder, tmp_path / "copy")
    before = load_file(source / reading.WHOLE)
    assert all(tensor.dtype == torch.bfloat16 for tensor in after.values())
    if heads == 2:
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "copy", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids()).logits, decoder(ids()), **CLOSE)


def test_an_untied_head_is_a_weight_of_its_own_in_training(tmp_path: Path) -> None:
    decoder = directory.load_decoder(
        published(tmp_path / "source", "qwen3", another_head, tie_word_embeddings=True)
    )
    decoder(ids()).square().mean().backward()
    names = {name for name, parameter in decoder.named_parameters() if parameter.grad is not None}
    assert {"network.lm_head.weight", "network.model.embed_tokens.weight"} <= names


IGNORED: dict[str, tuple[str, dict[str, Tensor]]] = {
    "layers for further tokens": (
        "glm4_moe",
        {
            "model.layers.46.eh_proj.weight": torch.ones(3, 3),
            "model.layers.46.mlp.gate.weight": torch.ones(4),
        },
    ),
    "rotary frequencies": (
        "llama",
        {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(2)},
    ),
    "masks": ("gpt2", {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool)}),
    "masks in bytes": (
        "gpt_neox",
        {"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8)},
    ),
}


@pytest.mark.parametrize("case", IGNORED)
def test_what_transformers_ignores_is_left_out(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, more = IGNORED[case]
    decoder = loaded_as_by_transformers(published(tmp_path / "source", kind, lambda tensors: tensors | more))
    assert f"{len(more)} tensors, such as {min(more)}, are not used by" in capsys.readouterr().out
    assert not more.keys() & written(decoder, tmp_path / "copy").keys()


def test_other_tensors_are_not_ignored(tmp_path: Path) -> None:
    more = {"model.layers.45.eh_proj.weight": torch.ones(3, 3)}
    source = published(tmp_path / "source", "glm4_moe", lambda tensors: tensors | more)
    with pytest.raises(JobError, match=r"its weights hold model\.layers\.45\.eh_proj\.weight, for which"):
        directory.load_decoder(source)


def test_names_without_the_prefix_of_the_layers_are_found(tmp_path: Path) -> None:
    def without(tensors: Tensors) -> Tensors:
        return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}

    source = published(tmp_path / "source", "gpt2", without)
    assert "wte.weight" in load_file(source / reading.WHOLE)
    decoder = loaded_as_by_transformers(source)
    after = written(decoder, tmp_path / "copy")
    assert all(tensor.dtype == torch.bfloat16 for tensor in after.values())
    assert without(after).keys() == load_file(source / reading.WHOLE).keys()


def test_in_layer_experts_that_are_stacked_on_disk_stay_so(tmp_path: Path) -> None:
    def stacked(tensors: Tensors) -> Tensors:
        made = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
        for layer in range(2):
            place = f"model.layers.{layer}.mlp.experts"
            of = {
                part: torch.stack([tensors[f"{place}.{expert}.{part}_proj.weight"] for expert in range(4)])
                for part in ("gate", "up", "down")
            }
            made[f"{place}.gate_up_proj"] = torch.cat([of["gate"], of["up"]], dim=1)
            made[f"{place}.down_proj"] = of["down"]
        return made

    source = published(tmp_path / "source", "qwen3_moe", stacked)
    after = written(loaded_as_by_transformers(source), tmp_path / "copy")
    before = load_file(source / reading.WHOLE)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def lacking(tensors: Tensors) -> None:
    del tensors["model.norm.weight"]


def misshapen(tensors: Tensors) -> None:
    tensors["model.norm.weight"] = torch.ones(3)


def superfluous(tensors: Tensors) -> None:
    tensors["model.odd"] = torch.ones(3)


def in_bytes(tensors: Tensors) -> None:
    tensors["model.norm.weight"] = torch.ones(32, dtype=torch.uint8)


@pytest.mark.parametrize("change", [lacking, misshapen, superfluous, in_bytes])
def test_an_import_that_was_faulty_where_it_came_from_has_a_reason_of_its_own(
    change: Callable[[Tensors], None], tmp_path: Path
) -> None:
    source = published(tmp_path / "imports" / "0123", "llama", change)
    with pytest.raises(JobError, match=r"^BaseUnfit: .*model\.(norm|odd).*take another checkpoint") as found:
        directory.load_decoder(source)
    assert "Restore" not in found.value.message and not found.value.retryable
    made_here = published(tmp_path / "revisions" / "a1", "llama", change)
    with pytest.raises(JobError, match=r"^ArtefactCorrupt: .*model\.(norm|odd).*Restore the folder"):
        directory.load_decoder(made_here)


def test_a_checkpoint_that_names_no_longest_sequence_is_refused(tmp_path: Path) -> None:
    source = published(tmp_path / "source", "llama", lambda tensors: None)
    config = json.loads((source / "config.json").read_text()) | {"max_position_embeddings": -1}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(JobError, match=r"ModelUnsupported.*(max_position_embeddings|refuses)"):
        directory.load_decoder(source)
