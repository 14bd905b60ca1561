import pytest

from moe_trainer.evaluators.measures import code_parses, exact_match
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
