r"""What a document says: a text, or a conversation and who said what in it. Imports no torch.

A conversation is stored as one text, with the words of its turns joined by a blank line, and the length of each
turn. So filters, near-duplicates, holdouts and bits per byte see only the words, whatever template a tokenizer puts
around them later, and nothing is stored twice.

    text    How far is the Moon?\n\nAbout 384,000 km.
    turns   user 20, assistant 17

Thoughts that messages have in a field of their own are a turn too, right before the answer that they belong to.
"""

import hashlib
from collections.abc import Container, Iterator, Sequence
from typing import Literal

from pydantic import Field

from moe_formats.format import Format, canonical_json

Role = Literal["system", "user", "thoughts", "assistant"]

#: May stand before the text of a file, to say that it is UTF-8. It is no part of the text.
BYTE_ORDER_MARK = "\ufeff"

#: Stands between two turns.
BETWEEN_TURNS = "\n\n"


class Turn(Format):
    """One message of a conversation: who wrote it, and how many characters of the text are its words."""

    learnt: bool = Field(
        default=True,
        exclude_if=bool,  # so that conversations without weights stay the same bytes
        description="Whether an answer is learnt; other messages never are.",
    )
    length: int = Field(gt=0, description="Characters of the text that are its words.")
    role: Role


class Content(Format):
    """What a document says."""

    text: str
    turns: tuple[Turn, ...] | None = Field(default=None, description="Absent: plain text.")

    @classmethod
    def of_turns(cls, said: Sequence[tuple[Role, str]], unlearnt: Container[int] = ()) -> "Content":
        """Return a conversation of (role, words); ``unlearnt`` are the numbers of answers that are not to be learnt."""
        turns = tuple(
            Turn(role=role, length=len(words), learnt=number not in unlearnt)
            for number, (role, words) in enumerate(said)
        )
        return cls(text=BETWEEN_TURNS.join(words for _, words in said), turns=turns)

    def to_line(self) -> bytes:
        """Return the canonical JSON and a newline; faster than ``to_json``, since the fields are declared in order."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n"

    def said(self) -> Iterator[tuple[Role, str]]:
        """Yield (role, words) for each turn; nothing for plain text."""
        start = 0
        for turn in self.turns or ():
            yield turn.role, self.text[start : start + turn.length]
            start += turn.length + len(BETWEEN_TURNS)

    def answers(self) -> list[int]:
        """Return the numbers of the turns that are learnt."""
        return [
            number for number, turn in enumerate(self.turns or ()) if turn.role == "assistant" and turn.learnt
        ]

    def name(self) -> str:
        """Return the document's name: the first 32 hexadecimal digits of the SHA-256 of its content.

        For plain text this is the hash of its UTF-8 bytes. In a conversation the roles count too, and which answers are
        not learnt: the same words in other roles are another document.
        """
        hashed = hashlib.sha256(self.text.encode())
        if self.turns is not None:
            turns = [[turn.role, turn.length, *([] if turn.learnt else [0])] for turn in self.turns]
            hashed.update(b"\0" + canonical_json(turns).encode())
        return hashed.hexdigest()[:32]
