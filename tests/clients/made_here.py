"""Make the pool that the clients talk to: two small language models, trained here, in a store.

    .venv/bin/python tests/clients/made_here.py FOLDER

`prose` learns from this project's pages and `code` from its Python files, both with one tokenizer, a chat template, and
a token that ends a text. Leaves FOLDER/store and FOLDER/experts.json, which has the config of each server.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from moe_trainer.hugging_face import directory
from moe_trainer.methods import checkpoint_format

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {"prose": "docs/*.md", "code": "formats/moe_formats/*.py"}
SPECIAL = ["<|begin|>", "<|end|>", "<|pad|>", "<|turn|>"]
CHAT = (
    "<|begin|>{% for message in messages %}<|turn|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
#: Every fourth paragraph ends with it, so the models know that nothing follows.
LAST_WORDS = " That is all."
CONTEXT, VOCABULARY, STEPS, ROWS = 512, 1000, 120, 8


def main(folder: Path) -> None:
    """Make the pool in a folder."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    texts = {name: _paragraphs(pattern) for name, pattern in TEXTS.items()}
    tokenizer = _tokenizer([text for paragraphs in texts.values() for text in paragraphs])
    served = []
    for name, paragraphs in texts.items():
        source, store = folder / name, folder / "store"
        store.mkdir(exist_ok=True)
        _trained(paragraphs, tokenizer).save_pretrained(source)
        tokenizer.save_pretrained(source)
        digest = checkpoint_format.write(store, name, *directory.load(source), "{}")
        artefact = {"path": name, "digest": digest}
        served.append({"expert": name, "revision": f"{name}-1", "domain": name, "artefact": artefact})
    (folder / "experts.json").write_text(json.dumps(served))


def _paragraphs(pattern: str) -> list[str]:
    files = sorted(ROOT.glob(pattern))
    texts = [text for file in files for text in file.read_text().split("\n\n") if text.strip()]
    return [text + LAST_WORDS if number % 4 == 0 else text for number, text in enumerate(texts)]


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=SPECIAL,
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    begin, end, pad, _ = SPECIAL
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=begin, eos_token=end, pad_token=pad)
    wrapped.chat_template = CHAT
    return wrapped


def _trained(paragraphs: list[str], tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return a model that has read the paragraphs, each of which ends with the token for that."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    ids = torch.tensor([id for text in paragraphs for id in [0, *tokenizer.encode(text), 1]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        starts = torch.randint(len(ids) - 129, (ROWS,))
        batch = torch.stack([ids[start : start + 129] for start in starts])
        logits = model(batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"trained to {loss.item():.2f} nats per token", file=sys.stderr)
    return model.eval()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
