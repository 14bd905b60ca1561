"""Text to token ids and back: what the trainer needs of a tokenizer, and the tokenizer of the presets.

Checkpoints bring a tokenizer of their own (hugging_face/tokenizer.py). The one of the presets is byte-level: token i is
byte i, and three special tokens follow. It round-trips any bytes, so bits per byte are always defined. Its
``tokenizer.json`` describes it for Hugging Face's libraries (byte-level BPE without merges), but this module needs
none of them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from moe_formats.failure import JobError
from moe_formats.format import Digest, canonical_json, digest_of
from moe_trainer import untrusted
from moe_trainer.storage.files import write_file
from moe_trainer.text.content import BETWEEN_TURNS, Role

BOS, EOS, PAD = 256, 257, 258
_SPECIAL = {"<|bos|>": BOS, "<|eos|>": EOS, "<|pad|>": PAD}

#: A larger ``tokenizer.json`` is another tokenizer: this one has 9 KB.
_BYTE_LEVEL_BYTES = 1 << 20

#: The token ids of a piece of a conversation, and whether the model learns to write them.
ConversationPiece = tuple[list[int], bool]


class Conversation(NamedTuple):
    """A conversation as training reads it.

    Each row is a document, in pieces. ``left_out`` counts turns of which the chat template leaves words out: `answer` for
    answers that are therefore not learnt, `thoughts` for those that are learnt without them, and the role for the turns before
    the last learnt answer.
    """

    rows: list[list[ConversationPiece]]
    left_out: Mapping[str, int] = {}


class PromptReader(Protocol):
    """Turns prompts of strangers into ids, as its tokenizer does; several threads may use it at the same time."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; raises JobError if that is too much work."""
        ...

    def prompt(self, said: Sequence[tuple[Role, str]]) -> list[int]:
        """Return the ids after which the assistant is to write; raises JobError if that cannot be, or is too much work."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class Tokenizer(Protocol):
    """Text to token ids and back."""

    @property
    def bos_id(self) -> int:
        """The token that begins every document."""
        ...

    @property
    def eos_id(self) -> int:
        """The token that ends a document."""
        ...

    @property
    def pad_id(self) -> int:
        """A token that fills up shorter rows of a batch; predictions after it are ignored."""
        ...

    @property
    def vocab_size(self) -> int:
        """All token ids are below this number."""
        ...

    @property
    def digest(self) -> Digest:
        """A digest of everything that determines which ids a text has."""
        ...

    def encode(self, text: str | bytes) -> list[int]:
        """Return the ids of a text. No special token is added, and none is recognised in the text."""
        ...

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Return the bytes that the ids stand for, joined; special tokens stand for none."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text that the ids stand for; bytes that are not UTF-8 become U+FFFD."""
        ...

    def name(self, token: int) -> str:
        """Return what stands in the vocabulary for a token; ``token_id:N`` for an id beyond it."""
        ...

    def sizes(self) -> list[int]:
        """Return the number of bytes of each id; 0 for special tokens."""
        ...

    def conversation(self, said: Sequence[tuple[Role, str]], answers: Sequence[int]) -> Conversation:
        """Return a conversation in which the ``answers``, the numbers of turns, are learnt with the token that ends them."""
        ...

    def prompt(self, said: Sequence[tuple[Role, str]]) -> list[int]:
        """Return the ids after which the assistant is to write, with the token that begins the document."""
        ...

    def prompt_reader(self) -> PromptReader:
        """Return what a server turns prompts into ids with."""
        ...

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files, as Hugging Face's libraries read them, into a folder."""
        ...


class ByteTokenizer:
    """The presets' tokenizer. It has no state: all instances are the same."""

    bos_id = BOS
    eos_id = EOS
    pad_id = PAD
    vocab_size = 259

    @property
    def digest(self) -> Digest:
        """A digest of its ``tokenizer.json``."""
        return digest_of(canonical_json(_tokenizer_json()))

    def encode(self, text: str | bytes) -> list[int]:
        """Return one id per byte of the UTF-8 text; adds no special token."""
        return list(text.encode() if isinstance(text, str) else text)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of the ids, without special tokens."""
        return bytes(i for i in ids if i < 256)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text that the ids stand for; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode(errors="replace")

    def name(self, token: int) -> str:
        """Return the printable character that stands for a byte, or the name of a special token."""
        return _NAMES.get(token, f"token_id:{token}")

    def sizes(self) -> list[int]:
        """Return 1 for each byte, and 0 for each special token."""
        return [int(i < 256) for i in range(self.vocab_size)]

    def conversation(self, said: Sequence[tuple[Role, str]], answers: Sequence[int]) -> Conversation:
        r"""Return the words of each turn with a blank line between turns, without roles. An answer ends with eos.

        bos How far is the Moon? \n\n About 384,000 km. eos
                                       ^^^^^^^^^^^^^^^^^^^^^ learnt

        Thoughts and their answer are one piece.
        """
        pieces: list[ConversationPiece] = []
        thoughts: list[int] = []
        for number, (role, words) in enumerate(said):
            if role == "thoughts":
                thoughts = self.encode(words + BETWEEN_TURNS)
                continue
            pieces.append((self.encode(BETWEEN_TURNS) if pieces else [self.bos_id], False))
            pieces.append((thoughts + self._turn(role, words), number in answers))
            thoughts = []
        return Conversation([pieces if said[-1][0] == "assistant" else [*pieces, ([self.eos_id], False)]])

    def prompt(self, said: Sequence[tuple[Role, str]]) -> list[int]:
        """Return the turns as they are in a conversation, with a blank line after each."""
        ids = [self.bos_id]
        for role, words in said:
            ids += self._turn(role, words)
            ids += self.encode(BETWEEN_TURNS)
        return ids

    def _turn(self, role: Role, words: str) -> list[int]:
        ids = self.encode(words)
        return [*ids, self.eos_id] if role == "assistant" else ids

    def prompt_reader(self) -> PromptReader:
        """Return itself: its work is proportional to the text."""
        return self

    def close(self) -> None:
        """There is nothing to give back."""

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
        write_file(folder / "tokenizer.json", json.dumps(_tokenizer_json(), ensure_ascii=False, indent=1))
        write_file(folder / "tokenizer_config.json", json.dumps(_tokenizer_config(), indent=1))

    @classmethod
    def load(cls, folder: Path) -> "ByteTokenizer":
        """Return the tokenizer of an artefact; raises JobError (TokenizerUnsupported) for any other kind."""
        if not is_byte_level(folder):
            raise JobError(
                "TokenizerUnsupported",
                f"{folder.name}/tokenizer.json is not the byte-level tokenizer of the presets.",
            )
        return cls()


def is_byte_level(folder: Path) -> bool:
    """Return whether the tokenizer in a folder is the one of the presets."""
    try:
        return describes_byte_level(untrusted.read(folder / "tokenizer.json", _BYTE_LEVEL_BYTES))
    except (OSError, ValueError):
        return False


def describes_byte_level(data: bytes) -> bool:
    """Return whether a ``tokenizer.json`` is that of the presets."""
    if len(data) > _BYTE_LEVEL_BYTES:
        return False
    try:
        found = untrusted.parse(data)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("model") == _tokenizer_json()["model"]


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
            "vocab": {character: byte for byte, character in enumerate(byte_characters())} | _SPECIAL,
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


def byte_characters() -> list[str]:
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


_NAMES: dict[int, str] = {**dict(enumerate(byte_characters())), **{i: name for name, i in _SPECIAL.items()}}
