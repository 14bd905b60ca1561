import random

import pytest

from moe_trainer.data.minhash import NearDuplicates, signature, similarity


def words(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices("abcdefghij", k=6)) for _ in range(count)]


def jaccard(left: list[str], right: list[str]) -> float:
    a, b = (set(zip(w, w[1:], w[2:], strict=False)) for w in (left, right))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("changed", [0, 10, 50, 150, 400])
def test_the_estimate_is_near_the_true_jaccard_similarity(changed: int) -> None:
    original = words(1000, seed=1)
    altered = [*words(changed, seed=2), *original[changed:]]
    estimate = similarity(signature(" ".join(original)), signature(" ".join(altered)))
    assert abs(estimate - jaccard(original, altered)) < 4 * 0.045


def test_texts_without_a_common_shingle_look_unlike() -> None:
    assert similarity(signature(" ".join(words(300, 1))), signature(" ".join(words(300, 2)))) < 0.1


@pytest.mark.parametrize("text", ["", "!", "one", "one two", "   ", "é" * 100])
def test_the_shortest_texts_have_a_signature_and_resemble_only_themselves(text: str) -> None:
    assert similarity(signature(text), signature(text)) == 1
    assert similarity(signature(text), signature("quite another text of six words")) < 0.5


def test_case_and_punctuation_do_not_hide_a_duplicate() -> None:
    assert signature("To be, or not to be!") == signature("to be or not -- to be")


def test_an_index_finds_edited_copies_among_many() -> None:
    documents = [words(200, seed) for seed in range(100)]
    index = NearDuplicates(threshold=0.5)
    for number, document in enumerate(documents):
        index.add(str(number), signature(" ".join(document)))
    for number, document in enumerate(documents):
        copy = document[:190] + words(10, seed=1000 + number)
        assert index.like(signature(" ".join(copy))) == [str(number)]


def test_signatures_never_change_within_a_scheme() -> None:
    """What pools have stored is compared with what is computed today: see SCHEME before editing this."""
    signed = signature("We hold these truths to be self-evident, that all men are created equal.")
    assert len(signed) == 512
    assert signed[:16].hex() == GOLDEN


GOLDEN = "e3ba143f3241dda081c7a502d04d6e64"
