"""The measures: functions that rate a model's completion with a number from 0 to 1. Imports no torch."""

import re
import unicodedata
from collections.abc import Callable, Iterator

from moe_trainer import limits
from moe_trainer.evaluators.tasks import Completion, Item
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
    folded = _compatible(text).casefold()
    return re.sub(r"\s+", " ", folded).strip().removesuffix(".").rstrip()


#: Characters that become combining marks, although Unicode does not count them as such.
_BECOME_MARKS = "\u0f73\u0f75\u0f81\uff9e\uff9f"


def _compatible(text: str) -> str:
    """Return a text in Unicode's form NFKC; after many combining marks in a row, the following ones keep their order."""
    return "".join(unicodedata.normalize("NFKC", part) for part in _parts(text))


def _parts(text: str) -> Iterator[str]:
    """Yield a text in parts, in each of which not too many combining marks follow each other."""
    start, marks = 0, 0
    for at, character in enumerate(text if not text.isascii() else ""):
        marks = marks + 1 if unicodedata.combining(character) or character in _BECOME_MARKS else 0
        if marks > limits.COMBINING_MARKS:
            yield text[start:at]
            start, marks = at, 1
    yield text[start:]


#: The measures by their names in a pool's spec. For `container` a grader judges instead (verdicts.py).
MEASURES: dict[str, Callable[[Item, Completion], float]] = {
    "exactMatch": exact_match,
    "codeParses": code_parses,
}
