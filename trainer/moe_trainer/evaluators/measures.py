"""What counts as right: a number of 0 to 1 for what a model wrote. Imports no torch."""

import re
import unicodedata
from collections.abc import Callable

from moe_trainer.evaluators.tasks import Completion, Item
from moe_trainer.text.python_syntax import parses


def exact_match(item: Item, completion: Completion) -> float:
    """Return 1 if the completion is one of the item's answers, as `normalised` reads both."""
    said = normalised(completion.text)
    return float(any(said == normalised(answer) for answer in item.answers))


def code_parses(item: Item, completion: Completion) -> float:
    """Return 1 if the prompt and the completion together are Python that parses.

    Where the limit of tokens cut a completion, its last line is left out if it is a part of one.
    """
    written = completion.text
    if completion.cut:
        written = written[: written.rfind("\n") + 1]
    return float(bool(written.strip()) and parses(item.prompt + written))


def normalised(text: str) -> str:
    """Return a text without what does not change an answer: case, width of characters, spacing, a full stop."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"\s+", " ", folded).strip().removesuffix(".").rstrip()


#: By the name that a pool gives them; what `container` measures is said by a grader instead (verdicts.py).
MEASURES: dict[str, Callable[[Item, Completion], float]] = {
    "exactMatch": exact_match,
    "codeParses": code_parses,
}
