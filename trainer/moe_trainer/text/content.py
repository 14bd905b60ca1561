r"""What one document says: a text, or a conversation and who said what in it. Imports no torch.

A conversation is stored as one text, its turns' words joined by a blank line, and the length of each turn.
So filters, near-duplicates, holdouts and bits per byte look at the words alone, whatever template a
tokenizer will put around them, and nothing is stored twice.

    text    How far is the Moon?\n\nAbout 384,000 km.
    turns   user 20, assistant 17
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from moe_formats.format import Format, canonical_json

Role = Literal["system", "user", "assistant"]

#: Stands between two turns.
BETWEEN_TURNS = "\n\n"


class Turn(Format):
    """One message of a conversation, without its words."""

    length: int = Field(gt=0, description="Characters of the text that are its words.")
    role: Role


class Content(Format):
    """What a document says."""

    text: str
    turns: tuple[Turn, ...] | None = Field(default=None, description="Absent: plain text.")

    @classmethod
    def of_turns(cls, said: Sequence[tuple[Role, str]]) -> "Content":
        """Return a conversation of (role, words)."""
        turns = tuple(Turn(role=role, length=len(words)) for role, words in said)
        return cls(text=BETWEEN_TURNS.join(words for _, words in said), turns=turns)

    def to_line(self) -> bytes:
        """Return the canonical text and a newline: ``to_json`` at once, as fields are declared in order."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n"

    def said(self) -> Iterator[tuple[Role, str]]:
        """Yield (role, words) of each turn; nothing if this is plain text."""
        start = 0
        for turn in self.turns or ():
            yield turn.role, self.text[start : start + turn.length]
            start += turn.length + len(BETWEEN_TURNS)

    def name(self) -> str:
        """Return the first 32 hexadecimal digits of its SHA-256: the same content has one name everywhere.

        For plain text that is the hash of its UTF-8 bytes. Who said what belongs to a conversation: the
        same words in other roles are another document.
        """
        hashed = hashlib.sha256(self.text.encode())
        if self.turns is not None:
            turns = [[turn.role, turn.length] for turn in self.turns]
            hashed.update(b"\0" + canonical_json(turns).encode())
        return hashed.hexdigest()[:32]
