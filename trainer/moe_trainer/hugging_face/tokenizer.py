"""The tokenizer of a checkpoint, from its ``tokenizer.json``, and its chat template.

If a document spells out a special token, it is treated as ordinary text. A conversation is tokenized as the chat
template writes it, including special tokens, as servers generally do. The files are written again as they were.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from moe_formats.failure import JobError
from moe_formats.format import Digest, canonical_json, digest_of
from moe_trainer import limits
from moe_trainer.hugging_face import tokenizer_files
from moe_trainer.hugging_face.bounded_sandbox import TemplateLimit
from moe_trainer.hugging_face.chat_template import ChatTemplate
from moe_trainer.hugging_face.conversations import Bounds, ConversationEncoder
from moe_trainer.hugging_face.encoding import TextEncoder, ids_of
from moe_trainer.hugging_face.tokenizer_files import CONFIG, TEMPLATE, TOKENIZER, json_object, unsupported
from moe_trainer.hugging_face.tokenizer_process import PromptProcesses, TemplateRefused, try_out
from moe_trainer.storage.files import write_file
from moe_trainer.text.content import BETWEEN_TURNS, Role
from moe_trainer.text.tokenizer import Conversation, byte_characters
from moe_trainer.untrusted import failing_as

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")

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
        self._config = json_object(files, CONFIG)
        description = json_object(files, TOKENIZER)
        tokenizer_files.check(description)
        with failing_as(lambda what: unsupported(f"{TOKENIZER} cannot be read: {what}")):
            self._words = _backend(files)
            vocabulary = self._words.get_vocab(with_added_tokens=True)
            added = self._words.get_added_tokens_decoder()
        self.vocab_size = 1 + max(vocabulary.values(), default=-1)
        if not 0 < self.vocab_size <= limits.VOCABULARY:
            raise unsupported(
                f"{TOKENIZER} has ids up to {self.vocab_size - 1:,}; the limit is {limits.VOCABULARY - 1:,}"
            )
        self._words.encode_special_tokens = True
        alone = {i for i, token in added.items() if token.special and not token.normalized}
        self._encoder = TextEncoder(_backend(files), alone)
        eos = self._named("eos_token")
        if eos is None:
            raise unsupported(f"{CONFIG} names no eos_token, which is needed to end a document")
        self.eos_id = eos
        #: The tokens at which a server ends an answer, according to the model; until that is known, all special ones.
        self.end_ids = frozenset(i for i, token in added.items() if token.special)
        self.bos_id = next(
            i for i in (self._named("bos_token"), self._words.token_to_id(_ENDOFTEXT), eos) if i is not None
        )
        pad = self._named("pad_token")
        self.pad_id = eos if pad is None else pad
        self._pieces = _pieces(vocabulary, added, description)
        template = _template(files, self._config)
        self._template = None if template is None else ChatTemplate(template)
        self._template_file = TEMPLATE if TEMPLATE in files else CONFIG
        if self.decode(self.encode(_PROBE)) != _PROBE:
            raise unsupported(
                f"{TOKENIZER} does not reproduce a text exactly (it returns {self.decode(self.encode(_PROBE))!r:.200} for "
                f"{_PROBE!r}), so bits per byte cannot be measured. Take a base with a lossless tokenizer"
            )

    @classmethod
    def load(cls, folder: Path) -> "CheckpointTokenizer":
        """Return the tokenizer of a directory, which a process of its own has tried out before.

        Raises JobError: TokenizerUnsupported, or ChatTemplateUnsupported if its chat template cannot be used at all.
        """
        files = tokenizer_files.read(folder)
        try_out(files, tokenizer_files.patterns(json_object(files, TOKENIZER)))
        return cls(files)

    @property
    def digest(self) -> Digest:
        """A digest of the tokenizer's files."""
        return digest_of(canonical_json({name: digest_of(data) for name, data in self._files.items()}))

    def encode(self, text: str | bytes) -> list[int]:
        """Return the ids of a text; bytes that are not UTF-8 become U+FFFD, which loses them."""
        words = text.decode(errors="replace") if isinstance(text, bytes) else text
        return ids_of(self._words, words)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Return the bytes that the ids stand for, joined; with the leading space that some tokenizers add.

        Ids beyond the vocabulary, which a model's embedding may have, stand for no bytes.
        """
        return b"".join(self._pieces[i] for i in ids if i < self.vocab_size)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        with failing_as(lambda what: unsupported(f"{TOKENIZER} cannot decode ids: {what}")):
            text: str = self._words.decode(list(ids), skip_special_tokens=True)
        return text

    def name(self, token: int) -> str:
        """Return what stands in the vocabulary for a token; ``token_id:N`` for an id beyond it."""
        name: str | None = self._words.id_to_token(token)
        return f"token_id:{token}" if name is None else name

    def sizes(self) -> list[int]:
        """Return the number of bytes of each id."""
        return [len(piece) for piece in self._pieces]

    def conversation(self, said: Sequence[tuple[Role, str]], answers: Sequence[int]) -> Conversation:
        """Return a conversation as the chat template writes it (conversations.py).

        Without a template: the words of each turn with a blank line between turns, as for the presets. Raises JobError
        (ChatTemplateUnsupported) if the template refuses the conversation, or writes the turns before an answer
        differently once the answer is there.
        """
        return self._chats.conversation(said, answers)

    def prompt(self, said: Sequence[tuple[Role, str]]) -> list[int]:
        """Return the ids after which the assistant's next words are to follow."""
        return self._chats.prompt(said)

    def prompt_reader(self) -> PromptProcesses:
        """Return what turns the prompts of strangers into ids: processes with limited memory and time."""
        return PromptProcesses(self._files)

    def save(self, folder: Path) -> None:
        """Write the files as they were read."""
        for name, data in self._files.items():
            write_file(folder / name, data)

    def _render(self, said: Sequence[tuple[Role, str]], *, ask: bool) -> str:
        """Return a conversation as text; with ``ask``, up to the place where the next answer begins."""
        bos, eos, pad = (self._words.id_to_token(i) or "" for i in (self.bos_id, self.eos_id, self.pad_id))
        if self._template is None:
            turns = (words + (eos if role == "assistant" else "") for role, words in said)
            return bos + BETWEEN_TURNS.join(turns) + (BETWEEN_TURNS if ask else "")
        failed = partial(_template_unsupported, self._template_file)
        tokens = {"bos_token": bos, "eos_token": eos, "pad_token": pad}
        try:
            text = self._template.render(said, ask=ask, tokens=tokens)
        except TemplateLimit as error:
            raise failed(str(error)) from None
        except MemoryError:
            raise
        except Exception as error:  # a template may fail in any way, and raise errors of its own
            raise TemplateRefused("ChatTemplateUnsupported", failed(f"it fails: {error}").message) from None
        asked = next((words.strip() for role, words in reversed(said) if role == "user"), "")
        if asked and asked not in text:
            raise failed(
                "it writes the turns without the user's words" if text.strip() else "it writes nothing"
            )
        return text

    @property
    def _chats(self) -> ConversationEncoder:
        bounds = Bounds(self.bos_id, self.eos_id, self.end_ids)
        refused = partial(_template_unsupported, self._template_file)
        return ConversationEncoder(self._encoder, self._render, bounds, refused)

    def _named(self, name: str) -> int | None:
        """Return the id of a token that the config names, as a string or as an object."""
        token = self._config.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        return None if content is None else self._words.token_to_id(str(content))


def _backend(files: Mapping[str, bytes]) -> Backend:
    made = Backend.from_str(files[TOKENIZER].decode())
    made.no_truncation()
    made.no_padding()
    return made


def _pieces(
    vocabulary: Mapping[str, int], added: Mapping[int, Any], description: Mapping[str, Any]
) -> list[bytes]:
    """Return the bytes that each id stands for, in the order of ids; special tokens stand for none."""
    kinds = {str(step.get("type")) for step in tokenizer_files.steps(description.get("decoder"))}
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    pieces = [b""] * (1 + max(vocabulary.values()))
    for piece, i in vocabulary.items():
        if "ByteLevel" in kinds and all(character in byte_of for character in piece):
            pieces[i] = bytes(byte_of[character] for character in piece)
        elif "ByteFallback" in kinds and _BYTE.fullmatch(piece):
            pieces[i] = bytes([int(piece[3:5], 16)])
        else:
            pieces[i] = piece.replace("▁", " ").encode()
    for i, token in added.items():
        pieces[i] = b"" if token.special else token.content.encode()
    return pieces


def _template(files: Mapping[str, bytes], config: Mapping[str, Any]) -> str | None:
    """Return the chat template, from its own file or from the config; of several, the one named default."""
    try:
        if TEMPLATE in files:
            return files[TEMPLATE].decode()
        found = config.get("chat_template")
        if isinstance(found, list):
            found = {item["name"]: item["template"] for item in found}.get("default")
    except (UnicodeDecodeError, KeyError, TypeError) as error:
        raise unsupported(f"the chat template cannot be read: {type(error).__name__}: {error}") from None
    if not isinstance(found, str):
        return None
    if len(found.encode()) > limits.TEMPLATE_BYTES:
        raise unsupported(
            f"the chat template in {CONFIG} has {len(found.encode()):,} bytes; the limit is {limits.TEMPLATE_BYTES:,}"
        )
    return found


def _template_unsupported(file: str, what: str) -> JobError:
    return JobError(
        "ChatTemplateUnsupported",
        f"the base's chat template ({file}) cannot be used for these messages: {what}. Change the messages, or take "
        "another base.",
    )
