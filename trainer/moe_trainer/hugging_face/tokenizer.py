"""The tokenizer of a checkpoint, from its ``tokenizer.json``, and its chat template.

If a document spells out a special token, it is treated as ordinary text. A conversation is tokenized as the chat
template writes it, including special tokens, as servers generally do. The files are written again as they were.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from moe_formats.failure import JobError
from moe_formats.format import Digest, canonical_json, digest_of, parse_json
from moe_trainer.text.content import BETWEEN_TURNS, Role
from moe_trainer.text.tokenizer import ConversationPiece, byte_characters

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")

#: The tokenizer, and every other file that Hugging Face's libraries may need with it.
FILES = (
    TOKENIZER,
    CONFIG,
    TEMPLATE,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)

#: The token that begins a document if the tokenizer names none for that.
_ENDOFTEXT = "<|endoftext|>"
#: A tokenizer must return this text unchanged, or bits per byte cannot be measured with it.
_PROBE = 'Once, at 7.30:\n\n\tdef f(x):  # "ÄÖ", 漢字, 🙂\n    return  x**2\n'


class CheckpointTokenizer:
    """A tokenizer of Hugging Face's library as the trainer's Tokenizer."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Take a tokenizer's files by name.

        Raises JobError (TokenizerUnsupported) if a file cannot be read, no token ends a document, or text does not
        survive encoding and decoding.
        """
        self._files = dict(files)
        self._config = _object(files, CONFIG)
        self._words, self._marked = _backend(files), _backend(files)
        self._words.encode_special_tokens = True
        self._special = {i for i, token in self._words.get_added_tokens_decoder().items() if token.special}
        eos = self._named("eos_token")
        if eos is None:
            raise _unsupported(f"{CONFIG} names no eos_token, which is needed to end a document")
        self.eos_id = eos
        self.bos_id = next(
            i for i in (self._named("bos_token"), self._words.token_to_id(_ENDOFTEXT), eos) if i is not None
        )
        pad = self._named("pad_token")
        self.pad_id = eos if pad is None else pad
        self.vocab_size = 1 + max(self._words.get_vocab(with_added_tokens=True).values())
        self._pieces = _pieces(self._words, _object(files, TOKENIZER))
        self._template = _template(files, self._config)
        if self.decode(self.encode(_PROBE)) != _PROBE:
            raise _unsupported(
                f"{TOKENIZER} does not reproduce a text exactly (it returns {self.decode(self.encode(_PROBE))!r} for "
                f"{_PROBE!r}), so bits per byte cannot be measured. Take a base with a lossless tokenizer"
            )

    @classmethod
    def load(cls, folder: Path) -> "CheckpointTokenizer":
        """Return the tokenizer of a directory; raises JobError (TokenizerUnsupported)."""
        files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
        if TOKENIZER not in files:
            raise _unsupported(
                f"{folder.name} has no {TOKENIZER}. Save it again with one of transformers' fast tokenizers"
            )
        return cls(files)

    @property
    def digest(self) -> Digest:
        """A digest of the tokenizer's files."""
        return digest_of(canonical_json({name: digest_of(data) for name, data in self._files.items()}))

    def encode(self, text: str | bytes) -> list[int]:
        """Return the ids of a text; bytes that are not UTF-8 become U+FFFD, which loses them."""
        words = text.decode(errors="replace") if isinstance(text, bytes) else text
        ids: list[int] = self._words.encode(words, add_special_tokens=False).ids
        return ids

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Return the bytes that the ids stand for, joined; with the leading space that some tokenizers add.

        Ids beyond the vocabulary, which a model's embedding may have, stand for no bytes.
        """
        return b"".join(self._pieces[i] for i in ids if i < self.vocab_size)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        text: str = self._words.decode(list(ids), skip_special_tokens=True)
        return text

    def sizes(self) -> list[int]:
        """Return the number of bytes of each id."""
        return [len(piece) for piece in self._pieces]

    def conversation(self, said: Sequence[tuple[Role, str]]) -> list[ConversationPiece]:
        """Return a conversation as the chat template writes it; the answers are learnt.

        A template may write earlier turns differently when a further answer is asked for (Qwen3's leaves out earlier
        thoughts). In that case the further answer begins a document of its own, with everything before it as the
        template then writes it.

        Without a template: the words of each turn with a blank line between turns, as for the presets. Raises JobError
        (ChatTemplateUnsupported) if the template refuses the conversation, or writes the turns before an answer
        differently once the answer is there.
        """
        documents: list[list[ConversationPiece]] = [[]]
        done = ""
        for number, (role, _) in enumerate(said):
            if role == "assistant":
                before = self._render(said[:number], ask=True)
                after = self._render(said[: number + 1], ask=False)
                if not after.startswith(before):
                    raise _template_unsupported(
                        "it writes the turns before an answer differently once the answer follows, so the answer's "
                        "words cannot be told apart from the rest"
                    )
                if not before.startswith(done):
                    documents.append([])
                    done = ""
                answer, rest = self._answer(after.removeprefix(before))
                documents[-1] += [
                    (self._mark(before.removeprefix(done)), False),
                    (answer, True),
                    (rest, False),
                ]
                done = after
        last = self._render(said, ask=False)
        if last.startswith(done):
            documents[-1].append((self._mark(last.removeprefix(done)), False))
        return [piece for document in documents for piece in self._bounded(document)]

    def prompt(self, said: Sequence[tuple[Role, str]]) -> list[int]:
        """Return the ids after which the assistant's next words are to follow."""
        ids = self._mark(self._render(said, ask=True))
        return ids if ids[0] == self.bos_id else [self.bos_id, *ids]

    def save(self, folder: Path) -> None:
        """Write the files as they were read."""
        for name, data in self._files.items():
            (folder / name).write_bytes(data)

    def _bounded(self, document: Sequence[ConversationPiece]) -> list[ConversationPiece]:
        """Return a document that starts with the token that begins documents; if that token also ends them, append it too."""
        pieces = [(ids, learnt) for ids, learnt in document if ids]
        if pieces[0][0][0] != self.bos_id:
            pieces = [([self.bos_id], False), *pieces]
        if self.bos_id == self.eos_id != pieces[-1][0][-1]:
            pieces.append(([self.eos_id], False))
        return pieces

    def _render(self, said: Sequence[tuple[Role, str]], *, ask: bool) -> str:
        """Return a conversation as text; with ``ask``, up to the place where the next answer begins."""
        bos, eos, pad = (self._words.id_to_token(i) or "" for i in (self.bos_id, self.eos_id, self.pad_id))
        if self._template is None:
            turns = (words + (eos if role == "assistant" else "") for role, words in said)
            return bos + BETWEEN_TURNS.join(turns) + (BETWEEN_TURNS if ask else "")
        from transformers.utils.chat_template_utils import render_jinja_template  # importing it takes long

        messages = [{"role": role, "content": words} for role, words in said]
        try:
            rendered = render_jinja_template(
                [messages],
                chat_template=self._template,
                add_generation_prompt=ask,
                bos_token=bos,
                eos_token=eos,
                pad_token=pad,
            )[0]
        except Exception as error:  # a template may fail in any way, and raise errors of its own
            raise _template_unsupported(f"it fails: {error}") from None
        return str(rendered[0])

    def _mark(self, text: str) -> list[int]:
        """Return the ids of a text written by the template, including special tokens."""
        ids: list[int] = self._marked.encode(text, add_special_tokens=False).ids
        return ids

    def _answer(self, text: str) -> tuple[list[int], list[int]]:
        """Return the ids of an answer with the special token that ends it, and of what the template writes after it."""
        ids = self._mark(text)
        last = max((at for at, i in enumerate(ids) if i in self._special), default=len(ids) - 1)
        return ids[: last + 1], ids[last + 1 :]

    def _named(self, name: str) -> int | None:
        """Return the id of a token that the config names, as a string or as an object."""
        token = self._config.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        return None if content is None else self._words.token_to_id(str(content))


def _backend(files: Mapping[str, bytes]) -> Backend:
    try:
        made = Backend.from_str(files[TOKENIZER].decode())
    except Exception as error:  # the library has no error class of its own
        raise _unsupported(f"{TOKENIZER} cannot be read: {error}") from None
    made.no_truncation()
    made.no_padding()
    return made


def _pieces(backend: Backend, description: Mapping[str, Any]) -> list[bytes]:
    """Return the bytes that each id stands for, in the order of ids; special tokens stand for none."""
    kinds = _kinds(description.get("decoder"))
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    vocabulary = backend.get_vocab(with_added_tokens=True)
    pieces = [b""] * (1 + max(vocabulary.values()))
    for piece, i in vocabulary.items():
        if "ByteLevel" in kinds and all(character in byte_of for character in piece):
            pieces[i] = bytes(byte_of[character] for character in piece)
        elif "ByteFallback" in kinds and _BYTE.fullmatch(piece):
            pieces[i] = bytes([int(piece[3:5], 16)])
        else:
            pieces[i] = piece.replace("▁", " ").encode()
    for i, token in backend.get_added_tokens_decoder().items():
        pieces[i] = b"" if token.special else token.content.encode()
    return pieces


def _kinds(decoder: Any) -> set[str]:
    """Return the types of a decoder's steps."""
    if not isinstance(decoder, dict):
        return set()
    return {str(decoder.get("type"))}.union(*map(_kinds, decoder.get("decoders", ())))


def _object(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    try:
        found = parse_json(files.get(name, b"{}"))
    except ValueError as error:
        raise _unsupported(f"{name} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise _unsupported(f"{name} is not a JSON object")
    return found


def _template(files: Mapping[str, bytes], config: Mapping[str, Any]) -> str | None:
    """Return the chat template, from its own file or from the config; of several, the one named default."""
    try:
        if TEMPLATE in files:
            return files[TEMPLATE].decode()
        found = config.get("chat_template")
        if isinstance(found, list):
            found = {item["name"]: item["template"] for item in found}.get("default")
    except (UnicodeDecodeError, KeyError, TypeError) as error:
        raise _unsupported(f"the chat template cannot be read: {type(error).__name__}: {error}") from None
    return found if isinstance(found, str) else None


def _unsupported(what: str) -> JobError:
    return JobError("TokenizerUnsupported", f"{what}.")


def _template_unsupported(what: str) -> JobError:
    return JobError(
        "ChatTemplateUnsupported",
        f"the base's chat template cannot be used for these messages: {what}. Change the messages, or take "
        "another base.",
    )
