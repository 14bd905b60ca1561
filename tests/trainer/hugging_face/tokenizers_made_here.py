"""Small tokenizers trained on a few lines, in the two families that checkpoints have."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXT = [
    "The order is alpha, then beta, then gamma.\n",
    "def f(x):\n    return x + 1\n",
    "Ähnlich groß: 漢字 🙂",
]
CHAT = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|eos|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
_SPECIAL = ["<|bos|>", "<|eos|>", "<|pad|>", "<|start|>"]


def byte_level(vocabulary: int = 290) -> Tokenizer:
    """Byte-level BPE, as of GPT-2, Llama 3 and Qwen."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=_SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return made


def metaspace() -> Tokenizer:
    """BPE over characters with a space before each text, and bytes for what is no token: Llama 2, Mistral."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    made.train_from_iterator(
        TEXT[:2],
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<unk>", *_SPECIAL, *bytes_], show_progress=False
        ),
    )
    state = json.loads(made.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in bytes_]
    return Tokenizer.from_str(json.dumps(state))


def write(folder: Path, made: Tokenizer, chat: str | None = CHAT) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    config = {
        "bos_token": "<|bos|>",
        "eos_token": {"__type": "AddedToken", "content": "<|eos|>"},
        "pad_token": "<|pad|>",
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config | ({"chat_template": chat} if chat else {}))
    )
