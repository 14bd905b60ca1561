"""The byte-level tokenizer of the presets: token i is byte i, and three special tokens follow.

It round-trips any bytes, so bits per byte are always defined. ``tokenizer.json`` says the same in the
format of Hugging Face's tokenizers (byte-level BPE without merges); this module needs neither package.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moe_trainer.failure import JobError

BOS, EOS, PAD = 256, 257, 258
_SPECIAL = {"<|bos|>": BOS, "<|eos|>": EOS, "<|pad|>": PAD}


class Tokenizer:
    """Text to token ids and back. Without state: every instance is the same."""

    bos_id = BOS
    eos_id = EOS
    pad_id = PAD
    vocab_size = 259

    def encode(self, text: str | bytes) -> list[int]:
        """Return one id a byte of the UTF-8 text; adds no special token."""
        return list(text.encode() if isinstance(text, str) else text)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of ids; special tokens have none."""
        return bytes(i for i in ids if i < 256)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode(errors="replace")

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
        (folder / "tokenizer.json").write_text(json.dumps(_tokenizer_json(), ensure_ascii=False, indent=1))
        (folder / "tokenizer_config.json").write_text(json.dumps(_tokenizer_config(), indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Return the tokenizer of an artefact; raises JobError (TokenizerUnsupported) for any other kind."""
        found = json.loads((folder / "tokenizer.json").read_text())
        expected = _tokenizer_json()
        if not isinstance(found, dict) or found.get("model") != expected["model"]:
            raise JobError(
                "TokenizerUnsupported",
                f"{folder.name}/tokenizer.json is not the byte-level tokenizer of the presets, the only kind supported.",
            )
        return cls()


def _tokenizer_json() -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": name, **flags} for name, i in _SPECIAL.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {character: byte for byte, character in enumerate(_byte_characters())} | _SPECIAL,
            "merges": [],
        },
    }


def _tokenizer_config() -> dict[str, Any]:
    names = {i: name for name, i in _SPECIAL.items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": names[BOS],
        "eos_token": names[EOS],
        "pad_token": names[PAD],
        "clean_up_tokenization_spaces": False,
    }


def _byte_characters() -> list[str]:
    """Return the printable character that stands for each byte in byte-level BPE (GPT-2's table)."""
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    characters, spare = [], 256
    for byte in range(256):
        characters.append(chr(byte if byte in printable else spare))
        spare += byte not in printable
    return characters
