"""Bases of other architectures through a training run: what is drawn, what is decayed, and what is refused before it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.trainer.hugging_face.test_training import DENSE, broken_and_resumed, data, job
from transformers import AutoModelForCausalLM

from moe_formats.failure import JobError
from moe_formats.job_config import ArtefactRef
from moe_formats.job_report import SnapshotHeadline
from moe_formats.training_spec import LoRASpec, TrainingSpec
from moe_trainer import train
from moe_trainer.environment import Environment
from moe_trainer.hugging_face import directory
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.manifest import read_manifest
from moe_trainer.training.optimization import AdamW

from . import tokenizers_made_here
from .architectures_made_here import tiny

__all__ = ["data"]

_WEIGHTS = "model.safetensors"


def base(store: Path, kind: str, **config: Any) -> ArtefactRef:
    """Commit a tiny random checkpoint of an architecture that sees as many tokens as training needs."""
    made = tiny(kind)
    made.update({"max_position_embeddings": 512} | config)
    torch.manual_seed(0)
    with new_folder(store, kind, "artefact") as working:
        AutoModelForCausalLM.from_config(made).save_pretrained(working)
        tokenizers_made_here.write(working, tokenizers_made_here.byte_level())
    return ArtefactRef(revision="base", path=kind, digest=read_manifest(store, kind)[1])


def weights(store: Path, path: str) -> bytes:
    return (store / path / _WEIGHTS).read_bytes()


def test_dropout_is_drawn_by_the_seed_and_the_step(data: SnapshotHeadline, tmp_path: Path) -> None:
    store = tmp_path / "store"
    parent = base(store, "gpt2", attn_pdrop=0.2, resid_pdrop=0.2, embd_pdrop=0.2)
    asked = job(data, parent, **DENSE)
    one = train.run(asked, Environment(store=store))
    torch.manual_seed(1234)  # as if other things had been drawn before
    again = broken_and_resumed(asked, store)
    assert again.resumed_from == 5
    assert weights(store, again.path) == weights(store, one.path)
    other = train.run(
        asked.model_copy(update={"seed": 8, "inputs_digest": parent.digest}), Environment(store=store)
    )
    assert weights(store, other.path) != weights(store, one.path)


def test_lora_that_finds_nothing_to_update_is_refused_with_what_there_is(
    data: SnapshotHeadline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    lora = {"method": "LoRA", "lora": LoRASpec(rank=2)}
    monkeypatch.setattr("moe_trainer.methods.lora.is_transposed", lambda _: False)  # as if nobody knew them
    with pytest.raises(JobError, match=r"InvalidConfig.*LoRA.*c_attn \(Conv1D\).*c_fc \(Conv1D\).*Full"):
        train.run(job(data, base(store, "gpt2"), **lora, **DENSE), Environment(store=store))
    monkeypatch.undo()
    attention = {"method": "LoRA", "lora": LoRASpec(rank=2, targets=("Attention",))}
    with pytest.raises(JobError, match=r"targets has no FeedForward, but .*\(c_proj\).*: add FeedForward\."):
        train.run(job(data, base(store, "gpt2"), **attention, **DENSE), Environment(store=store))
    targets = {"method": "LoRA", "lora": LoRASpec(rank=2, targets=("InLayerExperts",))}
    with pytest.raises(
        JobError,
        match=r"targets has InLayerExperts.*Attention: dense, query_key_value; FeedForward: dense_4h_to_h, dense_h_to_4h",
    ):
        train.run(job(data, base(store, "gpt_neox"), **targets, **DENSE), Environment(store=store))


@pytest.mark.parametrize("kind", ["gptj", "falcon", "opt"])
def test_lora_updates_layers_whatever_the_architecture_calls_them(
    kind: str, data: SnapshotHeadline, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    lora = {"method": "LoRA", "lora": LoRASpec(rank=2)}
    made = train.run(
        job(data, base(store, kind), **lora, **DENSE, max_steps=2, across_documents=False),
        Environment(store=store),
    )
    assert (store / made.path / "adapter_model.safetensors").exists()


def test_an_encoder_is_refused_before_the_first_step(data: SnapshotHeadline, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(
        JobError, match=r"ModelUnsupported.*BertLMHeadModel.*later tokens change what it predicts"
    ):
        train.run(job(data, base(store, "bert"), **DENSE), Environment(store=store))


EMBEDDINGS = {
    "gpt2": {"transformer.wte.weight", "transformer.wpe.weight"},
    "gpt_neox": {"gpt_neox.embed_in.weight"},
    "llama": {"model.embed_tokens.weight"},
    "opt": {"model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight"},
    "cohere": {
        "model.embed_tokens.weight",
        *(f"model.layers.{layer}.self_attn.{part}_norm.weight" for layer in range(2) for part in "qk"),
    },
}


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_norms_and_embeddings_are_not_decayed_whatever_they_are_called(kind: str, tmp_path: Path) -> None:
    config = tiny(kind)
    config.update({"use_qk_norm": True})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    decoder = directory.load_decoder(tmp_path)
    before = {name: parameter.detach().clone() for name, parameter in decoder.named_parameters()}
    for parameter in decoder.parameters():
        parameter.grad = torch.zeros_like(parameter)
    AdamW(decoder, TrainingSpec(weight_decay=0.5)).step(
        0.1
    )  # without a gradient, only the decay moves a weight
    still = {
        name.removeprefix("network.")
        for name, parameter in decoder.named_parameters()
        if torch.equal(parameter, before[name])
    }
    vectors = {name.removeprefix("network.") for name, weight in before.items() if weight.dim() == 1}
    assert still == EMBEDDINGS[kind] | vectors
