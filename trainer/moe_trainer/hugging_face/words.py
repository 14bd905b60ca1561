"""Whether words stand in what a chat template writes, and where.

White space does not count, nor do the marks around thoughts: templates may write both in their own way.
"""

import re
from itertools import islice

#: Around thoughts.
_MARKS = re.compile(r"</?think>")


def end_of_words(words: str, text: str) -> int | None:
    """Return the character of a text at which words end that stand in it; None if some of them do not."""
    if (at := text.find(words)) >= 0:
        return at + len(words)
    end = _end_in(words, "".join(text.split()))
    if not end:
        return end
    places = (at for at, character in enumerate(text) if not character.isspace())
    return next(islice(places, end - 1, None)) + 1


def stand_in(words: str, squeezed: str) -> bool:
    """Return whether all words are in a text without white space."""
    return _end_in(words, squeezed) is not None


def _end_in(words: str, squeezed: str) -> int | None:
    """Return where words end in a text without white space; None if some of them are not in it."""
    end = 0
    for part in _MARKS.split(words):
        wanted = "".join(part.split())
        if (at := squeezed.find(wanted, end)) < 0:
            return None
        end = at + len(wanted)
    return end
