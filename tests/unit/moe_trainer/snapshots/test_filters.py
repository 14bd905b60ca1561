"""Filters that look at a document, and what they say of a filter that means nothing."""

import base64
import math
import random
import re
import tracemalloc
from collections import Counter

import pytest

from moe_formats.failure import JobError
from moe_formats.job_config import Filter
from moe_trainer.snapshots import surprise
from moe_trainer.snapshots.filters import character_ratio, check_filters, dropped_by, surprise_band
from moe_trainer.snapshots.intake import batches_of_lines
from moe_trainer.snapshots.surprise import SurpriseModel
from moe_trainer.sources.cutting import cut_text
from moe_trainer.text.python_syntax import parses, piece_parses

from ..conftest import Place
from ..test_snapshot import Prose

ENGLISH = "The ship sailed at noon, and the whole town came down to the harbour to see it go. " * 4
FRENCH = "Le navire partit à midi, et toute la ville descendit au port pour le voir s'en aller. " * 4


@pytest.mark.parametrize(
    ("languages", "least", "kept"),
    [(("en",), None, {ENGLISH}), (("fr", "en"), None, {ENGLISH, FRENCH}), (("fr",), 0.99, {FRENCH})],
)
def test_texts_of_the_languages_are_kept(
    languages: tuple[str, ...], least: float | None, kept: set[str]
) -> None:
    rule = Filter(name="language", languages=languages, min=least)
    for text in (ENGLISH, FRENCH):
        assert dropped_by([rule], text) == (None if text in kept else "language")


def test_a_text_without_letters_is_in_no_language() -> None:
    assert dropped_by([Filter(name="language", languages=("en",))], "12 34 !!") == "language"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("def f(x):\n    return x\n", True),
        ("def f(x:\n    return x\n", False),
        ("Dear Sir,\n", False),
        ("    return x\n\ndef g():\n    pass\n", True),  # begins in a function
        ("        x = 1\n\n    y = 2\nz = 3\n", True),  # and falls back twice
        ("\tx = 1\ny = 2\n", True),
        ("    x = (\n", False),
        ("import os\nos._exit(1)\n", True),  # is not run
        ("(" * 50_000, False),
        ("1+" * 30_000 + "1", False),
    ],
)
def test_code_is_kept_if_it_parses(text: str, kept: bool) -> None:
    assert dropped_by([Filter(name="codeParses")], text) == (None if kept else "codeParses")


def test_pieces_of_a_file_that_was_cut_inside_of_its_blocks_parse() -> None:
    method = "    def method_{n}(self):\n        if self.x:\n            y = {n}\n\n        return 'text ' * 20\n\n"
    source = "class Long:\n" + "".join(method.format(n=n) for n in range(1500)) + "\n\nx = Long()\n"
    pieces = list(cut_text([source]))
    assert len(pieces) > 1 and not parses(pieces[1])
    assert all(piece_parses(piece) for piece in pieces)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Filter(name="language"), "it has no languages"),
        (Filter(name="language", languages=("en", "xx")), "languages has xx; those that are known: .* fr "),
        (Filter(name="perplexity"), "neither min nor max"),
        (Filter(name="perplexity", min=3, max=2), "larger than max"),
        (Filter(name="codeParses", language="cobol"), "must be python"),
    ],
)
def test_a_filter_without_meaning_is_refused(rule: Filter, said: str) -> None:
    with pytest.raises(JobError, match=f"InvalidConfig.*{rule.name}.*{said}"):
        check_filters([rule])


def test_bands_of_surprise_meet() -> None:
    rules = [Filter(name="perplexity", min=1, max=6), Filter(name="perplexity", max=5)]
    band = surprise_band(rules)
    assert band is not None and (band.min, band.max) == (1, 5)
    assert surprise_band([Filter(name="length", min=1)]) is None


def test_a_document_is_as_surprising_as_if_the_model_had_not_seen_it() -> None:
    texts = [f"{ENGLISH}{n}".encode() for n in range(5)] + [b"quite another text", b"", b"x", b"xy"]
    everything = SurpriseModel.fitted(texts)
    for number, text in enumerate(texts):
        others = SurpriseModel.fitted(texts[:number] + texts[number + 1 :])
        expected = others.bits_per_byte(text)
        assert everything.bits_per_byte(text, fitted=True) == pytest.approx(expected, abs=1e-9)


def test_surprise_is_the_mean_of_the_interpolated_trigrams() -> None:
    """Worked out by hand for two bytes after the model has seen `ab` once: K = 8."""
    model = SurpriseModel.fitted([b"ab"])
    a = (1 + 8 / 256) / (2 + 8)
    b = (1 + 8 * a) / (1 + 8)  # after a; b alone is as likely as a
    assert model.bits_per_byte(b"ab") == pytest.approx(-(math.log2(a) + math.log2(b)) / 2)


def surprise_in_plain_python(text: bytes, fitted_to: list[bytes]) -> float:
    """Return what the module's formula says, counted one byte after the other."""
    seen: Counter[bytes] = Counter()
    for other in fitted_to:
        for length in (1, 2, 3):
            seen.update(other[at : at + length] for at in range(len(other) - length + 1))
    after: Counter[bytes] = Counter()
    for gram, count in seen.items():
        after[gram[:-1]] += count
    bits = 0.0
    for at in range(len(text)):
        probability = 1 / 256
        for length in range(1, min(3, at + 1) + 1):
            gram = text[at + 1 - length : at + 1]
            probability = (seen[gram] + 8 * probability) / (after[gram[:-1]] + 8)
        bits -= math.log2(probability)
    return bits / len(text)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 9, 300])
def test_long_texts_are_as_surprising_though_they_are_read_in_parts(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit what they are when they are read at once, so that no document changes sides."""
    text, others = (FRENCH * 4).encode()[:size], [ENGLISH.encode(), b"x"]
    model = SurpriseModel.fitted([text, *others])
    found = [model.bits_per_byte(text), model.bits_per_byte(text, fitted=True)]
    monkeypatch.setattr(surprise, "_AT_ONCE", 4)
    in_parts = SurpriseModel.fitted([text, *others])
    assert [in_parts.bits_per_byte(text), in_parts.bits_per_byte(text, fitted=True)] == found
    assert found == pytest.approx(
        [surprise_in_plain_python(text, [text, *others]), surprise_in_plain_python(text, others)], abs=1e-12
    )


@pytest.mark.parametrize("fitted", [False, True])
def test_a_long_text_takes_memory_for_one_number_for_each_byte(
    fitted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surprise, "_AT_ONCE", 1 << 16)
    text = (ENGLISH.encode() * 8000)[: 2 << 20]
    model = SurpriseModel.fitted([text])
    tracemalloc.start()
    model.bits_per_byte(text, fitted=fitted)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tables = 66 << 20 if fitted else 0  # what the model counts in this text alone
    assert peak < tables + 14 * len(text)  # all at once, it took 56 times the text, or 77


def test_long_documents_are_scored_a_few_at_a_time() -> None:
    lines = [(b"x" * (1 << 20), False)] * 10 + [(b"y", True)] * 600
    batches = list(batches_of_lines(lines))
    assert [pair for batch in batches for pair in batch] == lines
    assert [len(batch) for batch in batches] == [4, 4, 256, 256, 90]


def test_what_is_unlike_its_fellows_is_dropped_and_counted(place: Place, prose: Prose) -> None:
    draw = random.Random(0)
    good = [" ".join(draw.choices(ENGLISH.split(), k=60)) + f" {n}" for n in range(80)]
    junk = [base64.b64encode(draw.randbytes(300)).decode() for _ in range(5)]
    place.text("prose", [*good, *junk])
    rule = (Filter(name="perplexity", max=5),)
    made = place.snapshot(place.job("prose", filters=rule))
    assert made.dropped == {"perplexity": 5}
    assert place.snapshot(place.job("prose", filters=rule)) == made


@pytest.mark.parametrize("text", [" \x1c", "\t\x1e\x1e", " \u2028 \x85"])
def test_a_piece_of_nothing_but_odd_separators_is_no_code_and_no_crash(text: str) -> None:
    assert dropped_by([Filter(name="codeParses")], text) == "codeParses"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "-" * 200_000 + "1",
        "a" + ".b" * 100_000,
        "[" * 99 + "]" * 99 + "\n" + "{1:" * 80,
        "if 1: pass\n" + "elif 1: pass\n" * 15_000,
        "".join(" " * depth + "if 1:\n" for depth in range(500)),
        "x = " + "1 if 1 else " * 20_000 + "1",
        "f(" * 90 + ")" * 90 + " 1 1",
        "é" * 300_000,
    ],
)
def test_code_that_is_made_to_exhaust_the_parser_is_judged_in_time(text: str) -> None:
    assert dropped_by([Filter(name="codeParses")], text) == "codeParses"


@pytest.mark.parametrize("seed", range(5))
def test_the_share_of_letters_is_the_same_for_long_texts(seed: int) -> None:
    draw = random.Random(seed)
    text = "".join(draw.choices("aé1 _-—。中\u0301🙂\u3000", k=200_000))
    odd = sum(1 for character in text if not re.match(r"[^\W_]|\s", character))
    assert character_ratio(text) == (len(text) - odd) / len(text)
