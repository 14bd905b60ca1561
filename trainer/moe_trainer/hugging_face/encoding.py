"""Encodes texts with the special tokens that a chat template writes, and continues an encoding without doing it again.

A tokenizer cuts a text at its special tokens first, and encodes what is between two of them by itself. So of a text that
goes on from one that is encoded already, only what follows the last special token has to be encoded again: a conversation is
encoded in time proportional to its length, however many prompts are made of it.
"""

from collections.abc import Set
from typing import NamedTuple

from tokenizers import Tokenizer as Backend

from moe_formats.failure import JobError
from moe_trainer.hugging_face.tokenizer_files import TOKENIZER, unsupported
from moe_trainer.untrusted import failing_as


class Encoded(NamedTuple):
    """A text with its token ids, and the character of the text at which each token starts."""

    text: str = ""
    ids: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()

    def first_from(self, character: int) -> int:
        """Return the number of the first token that starts at a character or after it."""
        found = (at for at in range(len(self.ids), 0, -1) if self.starts[at - 1] < character)
        return next(found, 0)


class TextEncoder:
    """Encodes texts in which special tokens are recognised."""

    def __init__(self, backend: Backend, special: Set[int]) -> None:
        """Take the tokenizer, and the ids of its special tokens."""
        self._backend, self._special = backend, special
        self._backend.post_processor = None  # it would trim spaces off the offsets

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return ids_of(self._backend, text)

    def encoded(self, text: str, before: Encoded | None = None) -> Encoded:
        """Return a text's encoding; it is found sooner if the text goes on from ``before``."""
        kept = self._settled(before) if before is not None and text.startswith(before.text) else 0
        start = before.starts[kept] if before is not None and kept else 0
        with failing_as(lambda what: _cannot_encode(text, what)):
            found = self._backend.encode(text[start:], add_special_tokens=False)
            ids, starts = tuple(found.ids), tuple(start + first for first, _ in found.offsets)
        if before is None or not kept:
            return Encoded(text, ids, starts)
        return Encoded(text, before.ids[:kept] + ids, before.starts[:kept] + starts)

    def _settled(self, before: Encoded) -> int:
        """Return how many tokens stay as they are, whatever follows the text: those before its last special token."""
        return next((at for at in range(len(before.ids) - 1, -1, -1) if before.ids[at] in self._special), 0)


def ids_of(backend: Backend, text: str) -> list[int]:
    """Return the ids that a tokenizer of the library has for a text; raises JobError (TokenizerUnsupported)."""
    with failing_as(lambda what: _cannot_encode(text, what)):
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    return ids


def _cannot_encode(text: str, what: str) -> JobError:
    return unsupported(f"{TOKENIZER} cannot encode a text of {len(text):,} characters: {what}")
