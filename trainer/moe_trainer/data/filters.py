"""Filters of single documents. Each drop is counted under the filter's name.

``nearDuplicate`` looks at all documents together: it is applied where the clusters are known
(splitting.py).
"""

import re
from collections.abc import Callable, Sequence

from moe_trainer.failure import JobError
from moe_trainer.job_config import Filter

_ODD = re.compile(r"[^\w\s]|_")
_PLAIN_ASCII = bytes(byte for byte in range(128) if chr(byte).isalnum() or chr(byte).isspace())


def character_ratio(text: str) -> float:
    """Return the share of a text's characters that are letters, digits or white space."""
    odd = text.encode().translate(None, _PLAIN_ASCII) if text.isascii() else _ODD.findall(text)
    return (len(text) - len(odd)) / max(1, len(text))


#: What a filter looks at, in the unit of its bounds.
MEASURES: dict[str, Callable[[str], float]] = {
    "length": lambda text: len(text.encode()),
    "characterRatio": character_ratio,
}


def check_filters(filters: Sequence[Filter]) -> None:
    """Raise JobError (InvalidFilter) for a filter that cannot mean anything."""
    for rule in filters:
        if rule.name == "nearDuplicate":
            if rule.threshold is not None and not 0.5 <= rule.threshold <= 1:
                raise _invalid(rule, f"threshold is {rule.threshold}: it must be 0.5 to 1 (default 0.8)")
        elif rule.min is None and rule.max is None:
            raise _invalid(rule, "it has neither min nor max: give at least one")
        elif rule.min is not None and rule.max is not None and rule.min > rule.max:
            raise _invalid(rule, f"min {rule.min} is larger than max {rule.max}")


def dropped_by(filters: Sequence[Filter], text: str) -> str | None:
    """Return the name of the first filter that drops a document, or None if it is kept."""
    for rule in filters:
        if rule.name in MEASURES:
            value = MEASURES[rule.name](text)
            if (rule.min is not None and value < rule.min) or (rule.max is not None and value > rule.max):
                return rule.name
    return None


def near_duplicate_threshold(filters: Sequence[Filter]) -> float | None:
    """Return the similarity from which on only one document of two is kept, or None to keep both."""
    thresholds = [0.8 if f.threshold is None else f.threshold for f in filters if f.name == "nearDuplicate"]
    return min(thresholds, default=None)


def _invalid(rule: Filter, what: str) -> JobError:
    return JobError("InvalidFilter", f"spec.data.filters, {rule.name}: {what}.")
