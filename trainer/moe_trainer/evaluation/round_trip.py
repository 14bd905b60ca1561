"""Whether a tokenizer gives text back as it was: otherwise bits per byte would be of another text.

A tokenizer that normalises (Qwen's puts text into form NFC) gives back other bytes for text in another form. Such segments
are left out of every score, which the snapshot already says.
"""

import unicodedata
from collections.abc import Callable, Sequence
from functools import partial

from moe_formats.job_report import Unreadable
from moe_trainer.evaluation.segments import Segment
from moe_trainer.text.tokenizer import Tokenizer

#: What tokenizers do to text, in words.
_CHANGES: dict[str, Callable[[str], str]] = {
    "puts text into Unicode's form NFC": partial(unicodedata.normalize, "NFC"),
    "puts text into Unicode's form NFD": partial(unicodedata.normalize, "NFD"),
    "puts text into Unicode's form NFKC": partial(unicodedata.normalize, "NFKC"),
    "puts text into Unicode's form NFKD": partial(unicodedata.normalize, "NFKD"),
    "puts text into lower case": str.lower,
    "takes spaces away at the ends of a text": str.strip,
}

#: Most characters of a text that a reason shows.
_SHOWN = 60


def is_given_back(tokenizer: Tokenizer, ids: Sequence[int], text: bytes) -> bool:
    """Return whether the ids that a tokenizer made of a text stand for that text."""
    return tokenizer.decode(ids).encode() == text


def unreadable(tokenizer: Tokenizer, segments: Sequence[Segment]) -> Unreadable | None:
    """Return how many segments a tokenizer does not give back, and why; None if it gives back all of them."""
    changed: list[tuple[str, str]] = []
    for segment in segments:
        ids = tokenizer.encode(segment.text)
        if not is_given_back(tokenizer, ids, segment.text):
            changed.append((segment.text.decode(), tokenizer.decode(ids)))
    if not changed:
        return None
    return Unreadable(segments=len(changed), of=len(segments), why=f"it {_why(changed)}")


def _why(changed: Sequence[tuple[str, str]]) -> str:
    """Return in words what a tokenizer does to texts, given with what it returns for them."""
    for words, change in _CHANGES.items():
        if all(change(text) == found for text, found in changed):
            return words
    text, found = changed[0]
    at = next(
        (n for n, (a, b) in enumerate(zip(text, found, strict=False)) if a != b), min(map(len, changed[0]))
    )
    return f"returns {found[at:][:_SHOWN]!r} for {text[at:][:_SHOWN]!r}"
