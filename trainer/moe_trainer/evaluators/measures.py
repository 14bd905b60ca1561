"""The measures: functions that rate a model's completion with a number from 0 to 1. Imports no torch."""

import re
from collections.abc import Callable

from moe_trainer.evaluators.tasks import Completion, Item
from moe_trainer.text.normal_form import compatible
from moe_trainer.text.python_syntax import parses


def exact_match(item: Item, completion: Completion) -> float:
    """Return 1 if the completion is one of the item's answers, as `normalised` reads both."""
    said = normalised(completion.text)
    return float(any(said == normalised(answer) for answer in item.answers))


def code_parses(item: Item, completion: Completion) -> float:
    """Return 1 if the prompt and the completion together are Python that parses.

    If the limit of tokens cut the completion, an incomplete last line is left out.
    """
    written = completion.text
    if completion.cut:
        written = written[: written.rfind("\n") + 1]
    return float(bool(written.strip()) and parses(item.prompt + written))


def normalised(text: str) -> str:
    """Return a text without differences that do not matter: case, width of characters, spacing, a final full stop."""
    folded = compatible(text).casefold()
    return re.sub(r"\s+", " ", folded).strip().removesuffix(".").rstrip()


#: The measures by their names in a pool's spec. For `container` a grader judges instead (verdicts.py).
MEASURES: dict[str, Callable[[Item, Completion], float]] = {
    "exactMatch": exact_match,
    "codeParses": code_parses,
}
