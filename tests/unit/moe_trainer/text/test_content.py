from moe_trainer.snapshots.filters import character_ratio
from moe_trainer.text.content import Content

CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def test_a_line_is_the_canonical_text() -> None:
    contents = [
        Content(text="".join(CHARACTERS)),
        Content.of_turns([("system", 'say "é"\n'), ("user", "\0\x7f\u2028"), ("assistant", "🙂\\")]),
    ]
    for content in contents:
        assert content.to_line() == content.to_json().encode() + b"\n"
        assert Content.model_validate_json(content.to_line()) == content


def test_letters_digits_and_white_space_are_what_str_says() -> None:
    for character in CHARACTERS:
        expected = character.isalnum() or character.isspace()
        assert character_ratio(character) == expected
    assert character_ratio("ab!?") == 0.5
    assert character_ratio("é €") == 2 / 3
    assert character_ratio("") == 0
