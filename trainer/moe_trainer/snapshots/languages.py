"""Which language a text is in, by py3langid: naive Bayes over byte n-grams, 97 languages, a model of 1 MB."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

#: Characters of a text that are looked at: each costs some three microseconds, and more change little.
LOOKED_AT = 512


def language_of(text: str) -> tuple[str, float]:
    """Return the ISO 639-1 code of a text's likeliest language, and its probability."""
    language, probability = _identifier().classify(text[:LOOKED_AT])
    return str(language), float(probability)


def known_languages() -> list[str]:
    """Return the codes of all languages that may be found, sorted."""
    return sorted(_identifier().labels)


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
