"""LoRA on a base of transformers, through the whole trainer."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.trainer.hugging_face.test_training import DENSE, EXPERT, base, data, job, report, text
from tests.trainer.hugging_face.test_training_architectures import base as tiny_base
from transformers import AutoModelForCausalLM

from moe_formats.format import digest_of
from moe_formats.job_config import ArtefactRef, Comparison, EvaluateJob, HoldoutRef, SnapshotRef
from moe_formats.job_report import EvaluateHeadline, SnapshotHeadline, TrainHeadline
from moe_formats.training_spec import LoRASpec
from moe_trainer import evaluate, train
from moe_trainer.environment import Environment
from moe_trainer.methods import artefacts

__all__ = ["data"]

LORA = {"method": "LoRA", "lora": LoRASpec(rank=4, alpha=8)}


def evaluated(
    store: Path, data: SnapshotHeadline, base: ArtefactRef, made: TrainHeadline
) -> EvaluateHeadline:
    """Measure what a run made against its base, on the run's own holdout."""
    own = HoldoutRef(domain="prose", expert="prose", path=data.anchor.path, digest=data.anchor.digest)
    candidate = ArtefactRef(
        revision="prose-1",
        path=made.path,
        digest=made.digest,
        ancestry=(SnapshotRef(path=data.path, digest=data.digest),),
    )
    asked = EvaluateJob(
        pool_uid="pool-uid",
        expert=EXPERT,
        revision="prose-1",
        candidate=candidate,
        base=base,
        comparisons=(Comparison(holdout=own, role="anchor"),),
        suite=(own,),
    )
    return evaluate.run(asked, Environment(store=store))


@pytest.mark.parametrize(("name", "training"), [("llama", DENSE), ("qwen3-moe", {})])
def test_an_adapter_is_trained_evaluated_and_loaded_by_peft(
    name: str, training: dict[str, Any], data: SnapshotHeadline, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    parent = base(store, name)
    made = train.run(job(data, parent, **LORA, **training), Environment(store=store))
    losses = report(store, made)["losses"]
    assert sum(losses[-4:]) / 4 < 0.9 * losses[0]

    ours, tokenizer = artefacts.load(store, made.path, made.digest)
    network = AutoModelForCausalLM.from_pretrained(store / parent.path, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(network, store / made.path)
    ids = torch.tensor([tokenizer.encode(text(1000))[:512]])
    torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)

    gain = evaluated(store, data, parent, made).gain
    assert gain is not None and gain.lower > 0.05


def test_an_adapter_is_merged_where_full_training_goes_on_from_it(
    data: SnapshotHeadline, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    first = train.run(job(data, base(store, "qwen3-moe"), **LORA), Environment(store=store))
    parent = ArtefactRef(revision="prose-1", path=first.path, digest=first.digest)
    still = job(data, parent, learning_rate=1e-30, max_steps=1).model_copy(
        update={"inputs_digest": digest_of("full")}
    )
    second = train.run(still, Environment(store=store))
    assert (store / second.path / "model.safetensors").exists()
    assert second.validation_bits_per_byte == pytest.approx(first.validation_bits_per_byte, abs=0.02)
    before = report(store, first)["losses"][0]
    assert report(store, second)["losses"][0] < before - 0.5


def test_an_adapter_of_transposed_layers_is_merged_in_their_layout(
    data: SnapshotHeadline, tmp_path: Path
) -> None:
    """W' = W + s (B A)^T: GPT-2's Conv1D holds (inputs, outputs). PEFT's merged weights are the reference."""
    store = tmp_path / "store"
    parent = tiny_base(store, "gpt2")
    made = train.run(job(data, parent, **LORA, **DENSE), Environment(store=store))
    losses = report(store, made)["losses"]
    assert sum(losses[-4:]) / 4 < 0.95 * losses[0]
    ours, tokenizer = artefacts.load(store, made.path, made.digest)
    network = AutoModelForCausalLM.from_pretrained(store / parent.path, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(network, store / made.path)
    ids = torch.tensor([tokenizer.encode(text(1000))[:512]])
    torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)
    merged = theirs.merge_and_unload().state_dict()
    found = {name.removeprefix("network."): weight for name, weight in ours.weights().items()}
    assert any(name.endswith("c_attn.weight") for name in found)
    for name, weight in found.items():
        torch.testing.assert_close(weight, merged[name], atol=1e-6, rtol=1e-6)
    full = job(data, ArtefactRef(revision="prose-1", path=made.path, digest=made.digest), **DENSE)
    again = train.run(full.model_copy(update={"inputs_digest": digest_of("full")}), Environment(store=store))
    assert AutoModelForCausalLM.from_pretrained(store / again.path).config.model_type == "gpt2"
