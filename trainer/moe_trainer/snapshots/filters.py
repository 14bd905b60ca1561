"""Filters of documents. Each drop is counted under the filter's name.

length, characterRatio, language, codeParses     judge each document by itself, while it is read
perplexity                                       compares each with a sample of all, when all are read
nearDuplicate                                    compares all with each other, at the end (splitting.py)
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from moe_formats.failure import JobError
from moe_formats.job_config import Filter
from moe_trainer.text.python_syntax import piece_parses

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

#: A language counts as recognised from this probability on, unless the filter says otherwise.
LIKELY = 0.5

_ODD = re.compile(r"[^\w\s]|_")
_FOUND_AT_ONCE = 64 * 1024
_ASCII = re.compile(r"[\x00-\x7f]+")
_PLAIN_ASCII = bytes(byte for byte in range(128) if chr(byte).isalnum() or chr(byte).isspace())


def check_filters(filters: Sequence[Filter]) -> None:
    """Raise JobError (InvalidConfig) for a filter that cannot mean anything."""
    for rule in filters:
        if rule.name == "nearDuplicate":
            if rule.threshold is not None and not 0.5 <= rule.threshold <= 1:
                raise _invalid(rule, f"threshold is {rule.threshold}: it must be 0.5 to 1 (default 0.8)")
        elif rule.name == "language":
            _check_languages(rule)
        elif rule.name == "codeParses":
            if rule.language not in (None, "python"):
                raise _invalid(rule, f"language is {rule.language!r}: it must be python")
        elif rule.min is None and rule.max is None:
            raise _invalid(rule, "it has neither min nor max: give at least one")
        elif rule.min is not None and rule.max is not None and rule.min > rule.max:
            raise _invalid(rule, f"min {rule.min} is larger than max {rule.max}")


def _check_languages(rule: Filter) -> None:
    if not rule.languages:
        raise _invalid(rule, "it has no languages: list codes of ISO 639-1, such as en")
    unknown = sorted(set(rule.languages) - set(known_languages()))
    if unknown:
        raise _invalid(
            rule, f"languages has {', '.join(unknown)}; those that are known: {' '.join(known_languages())}"
        )


def dropped_by(filters: Sequence[Filter], text: str) -> str | None:
    """Return the name of the first filter that drops a document by itself, or None if it is kept."""
    return next((rule.name for rule in filters if not _keeps(rule, text)), None)


def surprise_band(filters: Sequence[Filter]) -> Filter | None:
    """Return all perplexity filters as one, with bounds in bits per byte; None if there is none."""
    bands = [rule for rule in filters if rule.name == "perplexity"]
    if not bands:
        return None
    least = max((rule.min for rule in bands if rule.min is not None), default=None)
    most = min((rule.max for rule in bands if rule.max is not None), default=None)
    return Filter(name="perplexity", min=least, max=most)


def near_duplicate_threshold(filters: Sequence[Filter]) -> float | None:
    """Return the similarity from which only one of two documents is kept, or None to keep both."""
    thresholds = [0.8 if f.threshold is None else f.threshold for f in filters if f.name == "nearDuplicate"]
    return min(thresholds, default=None)


def within(rule: Filter, value: float) -> bool:
    """Return whether a value is within a filter's bounds."""
    return (rule.min is None or value >= rule.min) and (rule.max is None or value <= rule.max)


def character_ratio(text: str) -> float:
    """Return the share of a text's characters that are letters, digits or white space."""
    odd = len(text.encode("ascii", "ignore").translate(None, _PLAIN_ASCII))
    if not text.isascii():
        others = _ASCII.sub("", text)
        for start in range(
            0, len(others), _FOUND_AT_ONCE
        ):  # a list of millions of characters takes much memory
            odd += len(
                _ODD.findall(others, start, start + _FOUND_AT_ONCE)
            )  # one character at a time takes long
    return (len(text) - odd) / max(1, len(text))


def _keeps(rule: Filter, text: str) -> bool:
    match rule.name:
        case "length":
            return within(rule, len(text.encode()))
        case "characterRatio":
            return within(rule, character_ratio(text))
        case "language":
            language, probability = language_of(text)
            return language in (rule.languages or ()) and probability >= (
                LIKELY if rule.min is None else rule.min
            )
        case "codeParses":
            return piece_parses(text)
        case _:
            return True


def _invalid(rule: Filter, what: str) -> JobError:
    return JobError("InvalidConfig", f"spec.data.filters, {rule.name}: {what}.")


#: Characters of a text by which its language is recognised: each takes about three microseconds, and more change little.
LOOKED_AT = 512


def language_of(text: str) -> tuple[str, float]:
    """Return the ISO 639-1 code of a text's likeliest language, and its probability."""
    language, probability = _identifier().classify(text[:LOOKED_AT])
    return str(language), float(probability)


def known_languages() -> list[str]:
    """Return the codes of all languages that can be recognised, sorted."""
    return sorted(_identifier().labels)


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
