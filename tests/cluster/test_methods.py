"""The real trainer by other methods and from other bases than the presets: from apply to a server that answers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stage import Stage

pytestmark = [pytest.mark.real_training, pytest.mark.timeout(1200)]

#: Seconds for a base and, beside one another, three Experts on it, with the real trainer on two busy cores.
PATIENCE = 600.0
#: Few and small steps: the Experts need not be good, only no worse than what they come from.
TRAINING = {"maxSteps": 24, "batchTokens": 1024, "learningRate": 0.003, "checkpointEvery": 12}
REAL = {"resources": {"profile": "real"}}


@pytest.fixture(scope="module")
def stage(new_stage: Callable[[str], Stage]) -> Iterator[Stage]:
    """A base trained on two weighted sources, an adapter and a bank on it, and an Expert of a checkpoint."""
    stage = new_stage("methods")
    for folder in ("words", "more", "own"):
        stage.write(folder, words=50)
    stage.pool()
    weighted = [{"store": "corpora", "path": f"{name}/*.txt", "weight": w} for name, w in MIXED.items()]
    apply(stage, "base", data={"sources": weighted})
    own = {"sources": [{"store": "corpora", "path": "own/*.txt"}]}
    apply(stage, "low-rank", base={"expert": "base"}, data=own | {"replay": {"share": 0.25}}, method="LoRA")
    apply(stage, "bank", base={"expert": "base"}, data=own, method="ExpertBank", bank={"experts": 2})
    digest = write_checkpoint(stage.data / "llama")
    llama = {"store": "corpora", "path": "llama", "digest": digest}
    apply(stage, "llama", base=llama, data=own, loadBalancingLossWeight=0, auxiliaryLossWeight=0)
    yield stage
    stage.clear()


MIXED = {"words": 3, "more": 1}


def apply(stage: Stage, name: str, *, base: object = None, data: object, **training: object) -> None:
    given = {} if base is None else {"base": base}
    stage.expert(name, data=data, training=TRAINING | REAL | training, serving={"profile": "real"}, **given)


def write_checkpoint(folder: Path) -> str:
    """Write a small random Llama as transformers saves one; return its digest."""
    # Imported here: the other tests of this folder need neither, and both take seconds and much memory.
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from moe_trainer.hugging_face.importing import digest_of_folder

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    config = LlamaConfig(vocab_size=300, bos_token_id=0, eos_token_id=1, pad_token_id=2, **sizes, **heads)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special, letters = ["<bos>", "<eos>", "<pad>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=special, initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator(["the order is alpha, then beta"], trainer)
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(
            0o644
        )  # safetensors lets only the owner read it, and pods run as another user if root started them
    return digest_of_folder(folder)


def artefact(stage: Stage, name: str) -> set[str]:
    """Return the files of an Expert's first artefact, once it has been judged."""
    revision = stage.wait(
        f"a verdict on {name}", lambda: stage.status(f"{name}-1", "ExpertRevision").get("verdict"), PATIENCE
    )
    assert revision["outcome"] == "Promoted", revision
    stage.wait_ready(name, PATIENCE)
    folder = stage.volume("pool-store") / stage.status(f"{name}-1", "ExpertRevision")["artefact"]["path"]
    return {path.name for path in folder.iterdir()}


def test_a_base_is_trained_on_weighted_sources(stage: Stage):
    assert "model.safetensors" in artefact(stage, "base")


def test_an_adapter_is_trained_with_replay_judged_and_served_without_its_bases_weights(stage: Stage):
    files = artefact(stage, "low-rank")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files
    assert "model.safetensors" not in files
    assert "contamination" not in stage.status("low-rank")["scores"]


def test_a_bank_is_trained_judged_and_served_without_its_bases_weights(stage: Stage):
    files = artefact(stage, "bank")
    assert "model.safetensors" not in files and any("bank" in name for name in files), files


def test_a_checkpoint_of_transformers_is_imported_trained_and_served(stage: Stage):
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= artefact(stage, "llama")
    assert stage.condition("llama", "BaseModelReady")["status"] == "True"
    for status in (stage.status("llama"), stage.status("llama-1", "ExpertRevision")["evidence"]):
        assert status["scores"]["contamination"] == "Unknown"
