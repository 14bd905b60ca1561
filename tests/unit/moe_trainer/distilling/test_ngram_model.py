"""The fitted table separates what can be separated, and is the very model that the gateway scores with."""

import numpy as np
import pytest

from moe_formats.ngram_table import NgramTable
from moe_trainer.distilling.ngram_model import NgramModel, Prompts, cross_entropy, fit_temperature, softmax

TEXTS = [b"the cat sat on the mat", b"def f(x): return x + 1"]


def prompts(copies: int = 40) -> Prompts:
    draw = np.random.default_rng(0)
    texts, labels = [], []
    for _ in range(copies):
        for label, text in enumerate(TEXTS):
            start = int(draw.integers(0, 8))
            texts.append(text[start : start + 12])
            labels.append(label)
    return Prompts.of(texts, np.eye(2)[labels])


def fitted() -> NgramModel:
    return NgramModel.empty(2).fitted(prompts(), 2, np.random.default_rng(0))


def test_it_learns_to_tell_texts_apart() -> None:
    given = prompts()
    right = fitted().logits(given.buckets_P).argmax(axis=1) == given.targets_PE.argmax(axis=1)
    assert right.all()


def test_the_gateway_computes_the_same_probabilities() -> None:
    model, temperature = fitted(), 1.7
    table = NgramTable(model.to_file(["prose", "code"], temperature))
    for text in TEXTS:
        given = Prompts.of([text], np.zeros((1, 2)))
        expected = softmax(model.logits(given.buckets_P) / temperature)[0]
        found = table.score(text.decode())
        assert [found["prose"], found["code"]] == pytest.approx(expected, abs=0.01)  # weights are rounded


def test_fitting_leaves_the_model_it_starts_from_alone_and_repeats_itself() -> None:
    empty = NgramModel.empty(2)
    first, second = (empty.fitted(prompts(), 1, np.random.default_rng(3)) for _ in range(2))
    assert not empty.weights_EW.any() and not empty.bias_E.any()
    assert np.array_equal(first.weights_EW, second.weights_EW)


def test_soft_labels_give_soft_probabilities() -> None:
    given = Prompts.of([b"either will do"] * 64, np.tile([0.7, 0.3], (64, 1)))
    model = NgramModel.empty(2).fitted(given, 60, np.random.default_rng(0))
    assert softmax(model.logits(given.buckets_P))[0] == pytest.approx([0.7, 0.3], abs=0.03)


def test_the_temperature_undoes_overconfidence() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 1, (4000, 2))
    outcomes = (draw.random(4000) < softmax(logits)[:, 1]).astype(int)
    assert fit_temperature(5 * logits, np.eye(2)[outcomes]) == pytest.approx(5, rel=0.15)


def test_cross_entropy_of_certainty_is_zero_and_of_ignorance_ln_2() -> None:
    assert cross_entropy(np.array([[50.0, -50.0]]), np.array([[1.0, 0.0]])) == pytest.approx(0)
    assert cross_entropy(np.zeros((1, 2)), np.array([[1.0, 0.0]])) == pytest.approx(np.log(2))


def test_an_empty_prompt_is_allowed() -> None:
    given = Prompts.of([b"", b"text"], np.eye(2))
    assert np.isfinite(
        NgramModel.empty(2).fitted(given, 1, np.random.default_rng(0)).logits(given.buckets_P)
    ).all()
