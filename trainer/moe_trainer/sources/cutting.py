"""Cuts long documents: holding out and comparing work on pieces of at most 64 KiB.

Texts are cut at blank lines while they are read: only the current piece is in memory. Conversations are cut before a
user's turn, and every piece begins with the system message; a single exchange is never cut.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from moe_formats.data_scheme import FIRST, Scheme
from moe_trainer.text.content import BETWEEN_TURNS, Content, Role

#: Longer documents are cut.
MAX_DOCUMENT_BYTES = 64 * 1024

#: What ends a paragraph, in each scheme: the end of a line, and a blank line. Lines end as Python's universal newlines do.
_LF = re.compile(r"\n\n")
_ANY = re.compile(r"(?>\r\n|\n|\r)[ \t]{0,80}+(?>\r\n|\n|\r)")
_BLANK_LINES: dict[Scheme, re.Pattern[str]] = {1: _LF, 2: _ANY, 3: _ANY}
#: The longest end of a paragraph, in characters and in bytes.
_LONGEST_END = 84


def cut_text(chunks: Iterable[str], scheme: Scheme = FIRST) -> Iterator[str]:
    """Yield a text that comes in chunks: whole if it has at most 64 KiB of UTF-8, else in pieces.

    A paragraph that is longer than that is cut between characters. Where the chunks begin and end makes no
    difference.
    """
    piece: list[str] = []
    size, whole = 0, True
    for paragraph in _paragraphs(chunks, _BLANK_LINES[scheme]):
        length = len(paragraph.encode())
        if size + length > MAX_DOCUMENT_BYTES:
            whole = False
            if text := _unless_blank(piece):
                yield text
            piece, size = [], 0
        piece.append(paragraph)
        size += length
    if whole:
        yield "".join(piece)
    elif text := _unless_blank(piece):
        yield text


def cut_conversation(content: Content) -> Iterator[Content]:
    """Yield a conversation: whole if it has at most 64 KiB of UTF-8, else in pieces of whole exchanges."""
    if len(content.text.encode()) <= MAX_DOCUMENT_BYTES:
        yield content
        return
    turns = list(content.said())
    unlearnt = {number for number, turn in enumerate(content.turns or ()) if not turn.learnt}
    first = int(turns[0][0] == "system")
    system = list(range(first))
    sizes = [len(words.encode()) + len(BETWEEN_TURNS) for _, words in turns]

    def made(piece: Sequence[int]) -> Content:
        places = {place for place, number in enumerate(piece) if number in unlearnt}
        return Content.of_turns([turns[number] for number in piece], places)

    piece, size = list(system), sum(sizes[:first])
    for exchange in _exchanges(turns, first):
        length = sum(sizes[exchange.start : exchange.stop])
        if size + length > MAX_DOCUMENT_BYTES and len(piece) > first:
            yield made(piece)
            piece, size = list(system), sum(sizes[:first])
        piece += exchange
        size += length
    yield made(piece)


def _paragraphs(chunks: Iterable[str], blank_line: re.Pattern[str]) -> Iterator[str]:
    """Yield paragraphs with the blank line that ends them; those that are too long come in several parts."""
    held = ""
    for chunk in chunks:
        held += chunk
        start = 0
        # A blank line at the very end may go on in the next chunk, as CR does with LF.
        while (found := blank_line.search(held, start)) and (found.end() < len(held) or held[-1] == "\n"):
            yield from _parts(held[start : found.end()])
            start = found.end()
        *parts, held = _parts(held[start:], spare=_LONGEST_END)
        yield from parts
    start = 0
    for found in blank_line.finditer(held):
        yield from _parts(held[start : found.end()])
        start = found.end()
    if held[start:]:
        yield from _parts(held[start:])


def _parts(paragraph: str, spare: int = 0) -> list[str]:
    """Return a paragraph in parts of at most 64 KiB; the last may be empty only if the paragraph is.

    The last one has up to ``spare`` bytes more: so many may be the beginning of a blank line that would not be seen if
    they were cut.
    """
    parts, data, start = [], paragraph.encode(), 0
    while len(data) - start > MAX_DOCUMENT_BYTES + spare:
        end = start + MAX_DOCUMENT_BYTES
        while data[end] & 0b1100_0000 == 0b1000_0000:  # within a character
            end -= 1
        parts.append(data[start:end].decode())
        start = end
    return [*parts, data[start:].decode()]


def _unless_blank(piece: list[str]) -> str:
    text = "".join(piece)
    return text if text.strip() else ""


def _exchanges(turns: Sequence[tuple[Role, str]], first: int) -> Iterator[range]:
    """Yield the numbers of the turns of each exchange, from the ``first`` turn on: a user's turn and what follows it."""
    start = first
    for number in range(first + 1, len(turns)):
        if turns[number][0] == "user":
            yield range(start, number)
            start = number
    yield range(start, len(turns))
