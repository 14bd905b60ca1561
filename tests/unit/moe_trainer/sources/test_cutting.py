import io
import random
import re
from collections.abc import Iterator

import pytest

from moe_formats.data_scheme import Scheme
from moe_trainer.sources.cutting import MAX_DOCUMENT_BYTES, cut_conversation, cut_text
from moe_trainer.text.content import Content, Role


def cut_at_once(text: str, scheme: Scheme = 1) -> Iterator[str]:
    """The definition, with the whole text in memory."""
    if len(text.encode()) <= MAX_DOCUMENT_BYTES:
        yield text
        return
    piece = ""
    for part in parts_at_once(text, scheme):
        if len((piece + part).encode()) > MAX_DOCUMENT_BYTES:
            if piece.strip():
                yield piece
            piece = ""
        piece += part
    if piece.strip():
        yield piece


def paragraphs_at_once(text: str) -> Iterator[str]:
    """Scheme 2: lines as io has them, of which a blank one of at most 80 spaces ends a paragraph."""
    paragraph = ""
    for line in io.StringIO(text, newline=""):
        begun, paragraph = paragraph != "", paragraph + line
        blank = not line.strip("\r\n \t") and len(line.strip("\r\n")) <= 80
        if begun and blank and line[-1] in "\r\n":
            yield paragraph
            paragraph = ""
    yield paragraph


def parts_at_once(text: str, scheme: Scheme) -> Iterator[str]:
    whole = paragraphs_at_once(text) if scheme == 2 else re.findall(r"(?s).*?\n\n|.+$", text)
    for paragraph in filter(None, whole):
        data = paragraph.encode()
        while len(data) > MAX_DOCUMENT_BYTES:
            head = data[:MAX_DOCUMENT_BYTES].decode(errors="ignore")
            yield head
            data = data[len(head.encode()) :]
        yield data.decode()


def in_chunks(text: str, draw: random.Random, longest: int) -> Iterator[str]:
    while text:
        length = draw.randint(1, longest)
        yield text[:length]
        text = text[length:]


@pytest.mark.parametrize("seed", range(30))
def test_pieces_do_not_depend_on_how_the_text_arrives(seed: int) -> None:
    draw = random.Random(seed)
    words = [
        "\n",
        "\n\n",
        "\n\n\n",
        "é" * draw.randint(1, 40_000),
        "x" * draw.randint(1, 70_000),
        "🙂" * 5_000,
        "a b",
    ]
    text = "".join(draw.choices(words, k=draw.randint(1, 60)))
    longest = draw.choice([50_000, 100_000, len(text)])
    assert list(cut_text(in_chunks(text, draw, longest))) == list(cut_at_once(text))


@pytest.mark.parametrize("around", range(-3, 4))
@pytest.mark.parametrize("end", ["\r\n\r\n", "\r\r\n", "\n \r\n", "\r\n   \r\n"])
def test_a_long_blank_line_where_a_part_ends_is_found_in_every_chunking(end: str, around: int) -> None:
    text = "x" * (MAX_DOCUMENT_BYTES + around) + end + "y" * (MAX_DOCUMENT_BYTES - 1)
    expected = list(cut_at_once(text, 2))
    assert len(expected) > 1
    for first in range(MAX_DOCUMENT_BYTES - 5, MAX_DOCUMENT_BYTES + 8):
        for second in (first + 1, first + 2):
            assert list(cut_text([text[:first], text[first:second], text[second:]], 2)) == expected


@pytest.mark.parametrize("seed", range(12))
def test_in_scheme_2_neither_and_any_line_ends_make_a_blank_line(seed: int) -> None:
    draw = random.Random(seed)
    words = ["\n", "\r\n", "\r", " ", "\t", " " * 79, " " * 80, " " * 81, "\n \n", "\r\n\r\n", "a b", "é"]
    words += ["x" * draw.randint(65_530, 65_540), "🙂" * draw.randint(1, 20_000), "\x0b\x0c\x1c\x85\u2028"]
    text = "".join(draw.choices(words, k=draw.randint(1, 80)))
    expected = list(cut_at_once(text, 2))
    assert list(cut_text([text], 2)) == expected
    for longest in (1000, 70_000):
        assert list(cut_text(in_chunks(text, draw, longest), 2)) == expected


@pytest.mark.parametrize("around", range(-3, 4))
def test_a_blank_line_where_a_part_ends_is_found_in_every_chunking(around: int) -> None:
    text = "x" * (MAX_DOCUMENT_BYTES + around) + "\n\n" + "y" * 10
    for first in range(MAX_DOCUMENT_BYTES - 4, MAX_DOCUMENT_BYTES + 5):
        assert list(cut_text([text[:first], text[first:]])) == list(cut_at_once(text))


def test_a_long_text_is_cut_as_it_arrives() -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "a paragraph of words\n\n" * 100

    pieces = cut_text(endless())
    assert all(len(next(pieces).encode()) <= MAX_DOCUMENT_BYTES for _ in range(50))


def exchanges(sizes: list[int], system: str = "") -> Content:
    said: list[tuple[Role, str]] = [("system", system)] if system else []
    for number, size in enumerate(sizes):
        said += [("user", f"question {number}"), ("assistant", "a" * size)]
    return Content.of_turns(said)


def test_a_short_conversation_is_one_document() -> None:
    content = exchanges([10, 20])
    assert list(cut_conversation(content)) == [content]


def test_a_long_conversation_is_cut_before_a_question_and_keeps_its_system_message() -> None:
    content = exchanges([30_000] * 5, system="Be brief.")
    pieces = list(cut_conversation(content))
    assert len(pieces) == 3
    for piece in pieces:
        roles = [role for role, _ in piece.said()]
        assert roles[:2] == ["system", "user"]
        assert len(piece.text.encode()) <= MAX_DOCUMENT_BYTES
    said = [turn for piece in pieces for turn in piece.said() if turn[0] != "system"]
    assert said == [turn for turn in content.said() if turn[0] != "system"]


def test_an_exchange_is_never_cut() -> None:
    pieces = list(cut_conversation(exchanges([10, 100_000, 10])))
    assert [len(list(piece.said())) for piece in pieces] == [2, 2, 2]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("character", ["x", "é", "🙂"])
def test_a_value_of_a_hundred_megabytes_is_cut_in_time_proportional_to_its_length(character: str) -> None:
    text = character * (100_000_000 // len(character.encode()))
    assert sum(len(piece) for piece in cut_text([text])) == len(text)


@pytest.mark.parametrize("seed", range(12))
def test_a_value_is_cut_as_it_always_was(seed: int) -> None:
    draw = random.Random(seed)
    text = ""
    while len(text) < 300_000:
        characters = draw.choice(["x", "é", "€", "🙂", "xé€🙂"])
        text += "".join(draw.choices(characters, k=draw.choice([1, 10, 70_000, 131_072]))) + draw.choice(
            ["", "\n", "\n\n"]
        )
    assert list(cut_text([text])) == list(cut_at_once(text))


@pytest.mark.timeout(20)
def test_a_conversation_of_very_many_short_turns_is_cut_into_whole_exchanges() -> None:
    content = exchanges([1] * 30_000)
    pieces = list(cut_conversation(content))
    assert [turn for piece in pieces for turn in piece.said()] == list(content.said())
    assert all(len(piece.text.encode()) <= MAX_DOCUMENT_BYTES for piece in pieces)


def test_pieces_keep_which_answers_are_not_learnt() -> None:
    whole = exchanges([30_000] * 5, system="Be brief.")
    content = Content.of_turns(list(whole.said()), {4, 10})
    pieces = list(cut_conversation(content))
    assert [piece.answers() for piece in pieces] == [[2], [2, 4], []]
