import random
import sys
import unicodedata

import pytest

from moe_trainer import limits
from moe_trainer.snapshots.intake import sign
from moe_trainer.text.content import Content
from moe_trainer.text.normal_form import comparable, compatible, is_comparable


def test_every_character_that_becomes_marks_counts_as_one() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if all(map(unicodedata.combining, unicodedata.normalize("NFKD", character))):
            many = character * (3 * limits.COMBINING_MARKS)
            assert max(map(len, many_parts(many))) <= limits.COMBINING_MARKS, hex(code)


def many_parts(text: str) -> list[str]:
    from moe_trainer.text.normal_form import _parts

    return list(_parts(text))


def test_every_format_character_that_python_knows_is_left_out() -> None:
    written = "".join(
        f"w{chr(code)}" for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"
    )
    assert len(written) > 2 * 150
    assert set(comparable(written)) == {"w"}


def test_variation_selectors_and_fillers_are_left_out_and_letters_are_not() -> None:
    assert comparable("\ufe0f\U000e0100\u3164\uffa0\u034fA é") == "a é"
    letters = "".join(chr(code) for code in range(sys.maxunicode + 1) if chr(code).isalnum())
    left_out = [letter for letter in letters if not comparable(letter)]
    assert left_out == list("\u115f\u1160\u3164\uffa0")  # Hangul fillers, which show nothing


@pytest.mark.parametrize("seed", range(20))
def test_writings_of_one_text_become_one_text(seed: int) -> None:
    draw = random.Random(seed)
    text = "".join(draw.choices("aé \uff14ﬁ가ÅﷺσςßİK½ǅ", k=200))
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    assert len({comparable(form) for form in forms} | {comparable(comparable(text))}) == 1
    assert compatible(text) == unicodedata.normalize("NFKC", text)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["a" + "\u0301\u0316" * 500_000, "\u200b" * 1_000_000, "\ufdfa" * 100_000])
def test_a_text_that_is_made_to_take_long_is_compared_in_time(text: str) -> None:
    assert comparable(text) or text[0] == "\u200b"


def test_a_text_that_would_become_too_large_is_known_before_it_is_made() -> None:
    assert is_comparable("a" * (16 << 20)) and is_comparable("\u00e9" * (8 << 20))
    assert not is_comparable("\ufdfa" * (16 << 20 >> 2))
    assert not is_comparable("a" * (1 << 20) + "\u3300" * (6 << 20))
    for code in range(sys.maxunicode + 1):
        assert len(compatible(chr(code))) <= 18


def test_a_document_that_would_become_too_large_is_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "COMPARABLE_CHARACTERS", 1000)
    swelling, plain = Content(text="\ufdfa" * 60), Content(text="a b c " * 100)
    signed = sign(2, (), [swelling, plain])
    assert signed.dropped == {"tooLarge": 1} and signed.lines == [plain.to_line()]
    assert not sign(1, (), [swelling, plain]).dropped  # pools of scheme 1 compare texts as they are
