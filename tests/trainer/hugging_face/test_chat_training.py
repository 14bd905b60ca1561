"""Trained on conversations, a base of transformers answers a prompt of transformers with the very tokens of the data."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from moe_formats.format import digest_of
from moe_formats.job_config import (
    ArtefactRef,
    ExpertRef,
    HoldoutRule,
    SnapshotJob,
    SnapshotRef,
    Source,
    TrainJob,
)
from moe_formats.training_spec import TrainingSpec
from moe_trainer import snapshot, train
from moe_trainer.environment import Environment
from moe_trainer.hugging_face import directory
from moe_trainer.methods import checkpoint_format

from .test_chats import CHATS, THOUGHT
from .tokenizers_made_here import for_templates, metaspace, write

EXPERT = ExpertRef(name="prose", uid="prose-uid", domain="prose")
TURNS = [("alpha?", "About alpha."), ("And then?", "About alpha.")]


def messages(opening: str) -> list[dict[str, str]]:
    said = [
        {"role": role, "content": words}
        for turn in TURNS
        for role, words in zip(("user", "assistant"), turn, strict=True)
    ]
    return [{"role": "user", "content": f"{opening} {said[0]['content']}"}, *said[1:]]


def base(root: Path, chat: str) -> ArtefactRef:
    """Commit a random base whose tokenizer puts a space before each text."""
    torch.manual_seed(0)
    sizes = dict.fromkeys(("hidden_size", "intermediate_size"), 64) | {
        "vocab_size": 440,
        "num_hidden_layers": 2,
    }
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    config = LlamaConfig(**sizes, **ids, num_attention_heads=4, max_position_embeddings=384)
    AutoModelForCausalLM.from_config(config).save_pretrained(root.parent / "base")
    write(root.parent / "base", for_templates(metaspace()), CHATS[chat].template)
    decoder, tokenizer = directory.load(root.parent / "base")
    digest = checkpoint_format.write(root, "base", decoder, tokenizer, "{}")
    return ArtefactRef(revision="base", path="base", digest=digest)


def trained(tmp_path: Path, chat: str, answers: list[list[dict[str, str]]]) -> Path:
    """Return the folder of what was trained on conversations."""
    (tmp_path / "sources" / "chats").mkdir(parents=True)
    lines = (json.dumps({"messages": conversation}) + "\n" for conversation in answers)
    (tmp_path / "sources" / "chats" / "a.jsonl").write_text("".join(lines))
    environment = Environment(store=tmp_path / "store", sources=tmp_path / "sources")
    environment.store.mkdir()
    job = SnapshotJob(
        pool_uid="pool-uid",
        expert=EXPERT,
        sources=(Source(root="chats", path="*.jsonl", format="messages"),),
        holdout=HoldoutRule(fraction=0.001, salt="salt"),
    )
    data = snapshot.run(job, environment)
    spec = {
        "learning_rate": 0.01,
        "max_steps": 60,
        "batch_tokens": 768,
        "load_balancing_loss_weight": 0.0,
        "auxiliary_loss_weight": 0.0,
    }
    made = train.run(
        TrainJob(
            pool_uid="pool-uid",
            expert=EXPERT,
            revision="prose-1",
            attempt=1,
            inputs_digest=digest_of(chat),
            parent=base(environment.store, chat),
            data=SnapshotRef(path=data.path, digest=data.digest),
            training=TrainingSpec.model_validate(spec),
            seed=7,
        ),
        environment,
    )
    return environment.store / made.path


@pytest.mark.parametrize("chat", ["llama 2", "mistral"])
def test_answers_and_their_ends_are_the_tokens_of_the_data_at_every_turn(tmp_path: Path, chat: str) -> None:
    openings = ["alpha", "beta", "gamma", "order", "then", "The", "def", "return"]
    conversations = [messages(f"{one} {other}") for one in openings for other in openings if one != other]
    folder = trained(tmp_path, chat, conversations)
    theirs, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    whole = tokenizer.apply_chat_template(conversations[0], return_dict=False)
    for number in (1, 3):
        prompt = tokenizer.apply_chat_template(
            conversations[0][:number], add_generation_prompt=True, return_dict=False
        )
        answer = whole[len(prompt) : whole.index(tokenizer.eos_token_id, len(prompt)) + 1]
        asked = torch.tensor([prompt])
        written = theirs.generate(asked, max_new_tokens=len(answer), do_sample=False)[0, len(prompt) :]
        assert written.tolist() == answer


def test_where_a_template_cuts_the_thoughts_of_all_answers_nothing_is_trained(tmp_path: Path) -> None:
    conversation = [{"role": "user", "content": "alpha?"}, {"role": "assistant", "content": THOUGHT}]
    conversations = [[{"role": "user", "content": f"alpha {n}?"}, conversation[1]] for n in range(30)]
    with pytest.raises(
        Exception, match=r"ChatTemplateUnsupported.*leaves out words of \d+ of the \d+ answers in data"
    ):
        trained(tmp_path, "thoughts", conversations)
