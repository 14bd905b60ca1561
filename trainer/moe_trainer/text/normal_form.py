"""Texts without the differences that Unicode allows between writings of the same words.

    compatible     form NFKC: composed or not, full width, ligatures
    comparable     the same without characters that only say how to show others, and without case

Both take time in proportion to the text, whatever is in it: putting combining marks in their order takes time with the
square of how many follow each other, so of many in a row the later ones keep their order.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

from moe_trainer import limits

#: Characters that become combining marks, although Unicode does not count them as such.
_BECOME_MARKS = "\u0f73\u0f75\u0f81\uff9e\uff9f"

#: No combining mark lies beyond.
_LAST_MARK = 0x1E94A

#: Most characters that one character becomes (U+FDFA).
_LONGEST_FORM = 18

#: Characters of category Cf and those that may be ignored by default (Unicode 15): soft hyphens, joiners, marks of
#: direction, byte order marks, variation selectors, tags. Signatures that pools store rest on them: they never change.
_FORMATTING = re.compile(
    "[\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)


def comparable(text: str) -> str:
    """Return a text as it is compared with others: writings of the same words become the same text."""
    if text.isascii():
        return text.lower()
    return compatible(compatible(_FORMATTING.sub("", text)).casefold())


def is_comparable(text: str) -> bool:
    """Return whether the normal form of a text has no more characters than COMPARABLE_CHARACTERS; it is not made."""
    if len(text) * _LONGEST_FORM <= limits.COMPARABLE_CHARACTERS:
        return True
    size = len(text) + sum(text.count(character) * (length - 1) for character, length in _ligatures())
    return size <= limits.COMPARABLE_CHARACTERS


def compatible(text: str) -> str:
    """Return a text in Unicode's form NFKC; after many combining marks in a row, the following ones keep their order."""
    if text.isascii():
        return text
    return "".join(unicodedata.normalize("NFKC", part) for part in _parts(text))


def _parts(text: str) -> Iterator[str]:
    """Yield a text in parts, in each of which not too many combining marks follow each other."""
    start = 0
    every = text[
        :: limits.COMBINING_MARKS + 1
    ]  # one of these is in every long run: most text has none, and is done
    runs = _long_runs().finditer(text) if any(map(_is_mark, set(every))) else ()
    for run in runs:
        for at in range(run.start() + limits.COMBINING_MARKS, run.end(), limits.COMBINING_MARKS):
            yield text[start:at]
            start = at
    yield text[start:]


def _is_mark(character: str) -> bool:
    return unicodedata.combining(character) > 0 or character in _BECOME_MARKS


@cache
def _ligatures() -> list[tuple[str, int]]:
    """Return the characters that become four or more, with how many."""
    forms = ((chr(code), len(unicodedata.normalize("NFKC", chr(code)))) for code in range(_LAST_MARK + 1))
    return [(character, length) for character, length in forms if length > 3]


@cache
def _long_runs() -> re.Pattern[str]:
    """Return what matches more combining marks in a row than are put in their order."""
    marks = "".join(filter(_is_mark, map(chr, range(_LAST_MARK + 1))))
    return re.compile(f"[{marks}]{{{limits.COMBINING_MARKS + 1},}}")
