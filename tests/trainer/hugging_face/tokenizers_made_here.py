"""Small tokenizers trained on a few lines, in the two families that checkpoints have."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from moe_trainer.text.content import Role

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
#: What templates of published models write between turns.
_OF_TEMPLATES = [
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[gMASK]",
    "<sop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


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
    made.train_from_iterator(
        TEXT[:2],
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<unk>", *_SPECIAL, *_BYTES], show_progress=False
        ),
    )
    state = json.loads(made.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in _BYTES]
    return Tokenizer.from_str(json.dumps(state))


def metaspace_once() -> Tokenizer:
    """The same with a mark before the first word of a text only: Mistral's later versions."""
    made = metaspace()
    made.normalizer = None  # type: ignore[assignment]
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


def byte_level_in_nfc() -> Tokenizer:
    """Byte-level BPE in which line breaks join each other and full stops, in composed form: Qwen, Llama 3."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    split = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(split, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        [*TEXT, "a.\n\n\nb.\n\nc\n\n\nd\n\n" * 9],
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=_SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return made


def unigram() -> Tokenizer:
    """Unigram with a space before each text, and bytes for what is no token: T5, Gemma."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(
        TEXT[:2] * 20,
        trainers.UnigramTrainer(
            vocab_size=350,
            special_tokens=["<unk>", *_SPECIAL, *_BYTES],
            unk_token="<unk>",
            show_progress=False,
        ),
    )
    state = json.loads(made.to_str())
    state["model"]["byte_fallback"] = True
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in _BYTES]
    made = Tokenizer.from_str(json.dumps(state))
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


def taking_space() -> Tokenizer:
    """Byte-level BPE whose special tokens take in the white space after them: Phi-3."""
    made = byte_level()
    made.add_special_tokens([AddedToken(token, normalized=False, rstrip=True) for token in _OF_TEMPLATES])
    return made


def for_templates(made: Tokenizer) -> Tokenizer:
    """Add what templates of published models write: special tokens for roles and ends, ordinary ones around thoughts.

    Tokens that are there already stay as they are.
    """
    made.add_special_tokens([AddedToken(token, normalized=False) for token in _OF_TEMPLATES])
    made.add_tokens([AddedToken(token, normalized=False) for token in ("<think>", "</think>")])
    return made


def answers(said: Sequence[tuple[Role, str]]) -> list[int]:
    """The numbers of the turns that a model learns."""
    return [number for number, (role, _) in enumerate(said) if role == "assistant"]


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
