import random
import tracemalloc
from zlib import crc32

import numpy as np
import pytest

from moe_trainer.deduplication import crc, minhash
from moe_trainer.deduplication.minhash import BINS, signature, signatures

from . import naive


def words(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices("abcdefghij", k=6)) for _ in range(count)]


def jaccard(left: list[str], right: list[str]) -> float:
    a, b = (set(zip(w, w[1:], w[2:], strict=False)) for w in (left, right))
    return len(a & b) / len(a | b)


def similarity(left: str, right: str) -> float:
    one, other = signatures([left, right])
    return float((one == other).sum()) / BINS


@pytest.mark.parametrize("changed", [0, 10, 50, 150, 400])
def test_the_estimate_is_near_the_true_jaccard_similarity(changed: int) -> None:
    original = words(1000, seed=1)
    altered = [*words(changed, seed=2), *original[changed:]]
    estimate = similarity(" ".join(original), " ".join(altered))
    assert abs(estimate - jaccard(original, altered)) < 4 * 0.045


def test_texts_without_a_common_shingle_look_unlike() -> None:
    assert similarity(" ".join(words(300, 1)), " ".join(words(300, 2))) < 0.1


@pytest.mark.parametrize("text", ["", "!", "one", "one two", "   ", "é" * 100])
def test_the_shortest_texts_have_a_signature_and_resemble_only_themselves(text: str) -> None:
    assert similarity(text, text) == 1
    assert similarity(text, "quite another text of six words") < 0.5


def test_case_and_punctuation_do_not_hide_a_duplicate() -> None:
    assert signature("To be, or not to be!") == signature("to be or not -- to be")


ODD = [
    *["", "!", "one", "one two", "   ", "x" * 100, "y" * 16 + " z b", "é" * 100, "É a " * 30, "\u2028 a b c"],
    *["İstanbul ß ǅ two " * 9, "日本語テキスト です ね" * 5, "a_b-c d²e ½ ٣ x", "🙂 🙂 x", "K k Å " * 4],
    *["word " * 20_000, "".join(f"{n} " for n in range(30_000))],
]


def test_signatures_are_those_of_the_plain_definition_whatever_is_signed_beside() -> None:
    draw = random.Random(0)
    texts = [*ODD, *("".join(draw.choices("ab é\n_-Éß日xY ", k=draw.randint(0, 80))) for _ in range(200))]
    expected = [naive.signature(text) for text in texts]
    assert [signed.tobytes() for signed in signatures(texts)] == expected
    assert [signature(text) for text in texts[:40]] == expected[:40]
    assert signatures([]).shape == (0, BINS)


def long_texts() -> dict[str, str]:
    """Texts that are cut at words, between words, within a single long word, or where there is no word at all."""
    draw = random.Random(2)
    return {
        "words": "".join(draw.choices("abcdef gh. ", k=3000)),
        "words of any script": "".join(draw.choices("ab漢é _ΣİǅΣ ", k=3000)),
        "long words": "".join(draw.choices("a" * 60 + "b ", k=3000)),
        "one word": "ab" * 1500,
        "one word and others": "ab" * 1000 + " c d" + "é" * 999,
        "no word": "!" * 3000,
        "one word among signs": "one" + "!" * 3000,
        "two words far apart": "one" + "!" * 1500 + "two" + "!" * 1500,
        "three words far apart": "one" + "!" * 1500 + "two" + "." * 1500 + "three",
        "words at the end": " " * 3000 + "at the very end",
    }


@pytest.mark.parametrize("name", long_texts())
def test_long_texts_have_the_same_signature_though_they_are_read_in_parts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = long_texts()[name]
    for size in (16, 48, 160):
        monkeypatch.setattr(minhash, "_CHARACTERS_AT_ONCE", size)
        for cut in range(0, 40, 3):
            monkeypatch.setattr(minhash, "_LONG_CHARACTERS", 300)
            found = signatures(["before", text[cut:], "after"])
            expected = [naive.signature(part) for part in ("before", text[cut:], "after")]
            assert [signed.tobytes() for signed in found] == expected


def test_a_long_text_takes_memory_for_a_part_of_it() -> None:
    text = "to be or not to be " * (4 << 20 >> 4)
    signatures([text[:1000]])
    tracemalloc.start()
    signatures([text])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * len(text)  # of which one is the text in lower case


def test_checksums_of_three_words_are_those_of_zlib() -> None:
    draw = random.Random(1)
    written = [draw.randbytes(draw.randint(1, crc.LONGEST)) for _ in range(100)]
    expected = [crc32(b" ".join(written[n : n + 3])) for n in range(98)]
    letters = np.frombuffer(b"".join(written), np.uint8)
    found = crc.of_shingles(letters, np.array([len(word) for word in written]))
    assert found.tolist() == expected


def test_signatures_never_change_within_a_scheme() -> None:
    """What pools have stored is compared with what is computed today: see moe_formats.data_scheme before editing this."""
    signed = signature("We hold these truths to be self-evident, that all men are created equal.")
    assert len(signed) == 512
    assert signed[:16].hex() == GOLDEN


GOLDEN = "e3ba143f3241dda081c7a502d04d6e64"
