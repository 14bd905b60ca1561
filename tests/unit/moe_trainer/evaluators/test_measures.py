import random
import unicodedata

import pytest

from moe_trainer.evaluators.measures import code_parses, exact_match, normalised
from moe_trainer.evaluators.tasks import Completion, Item
from moe_trainer.text.python_syntax import parses


def item(*answers: str, prompt: str = "2 + 2 =") -> Item:
    return Item(prompt=prompt, answers=answers, cluster="c")


@pytest.mark.parametrize(
    ("said", "right"),
    [
        (" 4", True),
        ("4.", True),
        ("FOUR", True),
        ("\uff14", True),  # a full-width digit
        ("four \n ", True),
        ("44", False),
        ("-4", False),
        ("4.0", False),
        ("", False),
    ],
)
def test_an_answer_is_matched_but_for_case_width_spacing_and_a_full_stop(said: str, right: bool) -> None:
    assert exact_match(item("4", "four"), Completion(said, cut=False)) == right


def test_inner_spaces_are_one_space() -> None:
    assert exact_match(item("a  b"), Completion("A\tb", cut=True)) == 1


@pytest.mark.parametrize(
    ("said", "cut", "right"),
    [
        ("    return x\n", False, True),
        ("    return x", False, True),
        ("return x\n", False, False),
        ("    return (x\n", False, False),
        ("    return x\n    y = (x", True, True),  # the last line was cut off, which is not its fault
        ("    return (x", True, False),  # nothing whole was written
        ("   ", False, False),
    ],
)
def test_code_is_judged_with_its_prompt_and_without_a_line_that_was_cut_off(
    said: str, cut: bool, right: bool
) -> None:
    assert code_parses(item(prompt="def f(x):\n"), Completion(said, cut)) == right


@pytest.mark.parametrize(
    "text", ["(" * 100_000, "-" * 200_000 + "1", "[" * 300, "x = '\0'", "lambda:" * 20_000, "a" * 300_000]
)
def test_hostile_text_does_not_parse_and_does_no_harm(text: str) -> None:
    assert not parses(text)


def test_nothing_is_executed(tmp_path: object) -> None:
    assert parses("raise SystemExit(open('/nonexistent').read())")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("marks", ["\u0301\u0316", "\u0f73\u0316", "\u0f81", "\u0344\u0323"])
def test_a_character_with_a_million_marks_is_compared_in_time(marks: str) -> None:
    bomb = "a" + marks * (1_000_000 // len(marks))
    assert exact_match(item("a"), Completion(bomb, cut=False)) == 0
    assert exact_match(item(bomb), Completion(bomb, cut=False)) == 1


@pytest.mark.parametrize("seed", range(20))
def test_real_text_is_normalised_as_before(seed: int) -> None:
    draw = random.Random(seed)
    characters = "aé \u0301\u0323\u0316\uff14ﬁ가각ᄀ\u1161ำ\n.\u0f73Åﷺ"
    text = "".join(draw.choices(characters, k=400))
    whole = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    assert normalised(text).split() == whole.strip().removesuffix(".").rstrip().split()
