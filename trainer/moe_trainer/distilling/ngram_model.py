"""The model behind the table of the Distilled strategy: multinomial logistic regression on hashed byte n-grams.

It is the model of moe_formats.ngram_table, and uses the hashing there. It is fitted by AdaGrad, which suits sparse
n-grams of which the rare ones tell most. numpy only; the same inputs give the same table.

Shape suffixes: E Experts, W buckets, P prompts, N n-grams of all prompts of a batch.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from moe_formats.ngram_table import TableFile, buckets_for, buckets_of
from moe_trainer.evaluation.matrix import Array

LEARNING_RATE = 0.5
BATCH = 64

#: AdaGrad's sums of squares start with this, which keeps the first steps small.
_INITIAL_SQUARES = 0.01


@dataclass(frozen=True)
class Prompts:
    """Texts as buckets of n-grams, each with the distribution over Experts that the model should predict for it."""

    buckets_P: Sequence[npt.NDArray[np.intp]]
    targets_PE: Array

    @classmethod
    def of(cls, texts: Sequence[bytes], targets_PE: Array) -> "Prompts":
        """Hash texts; an empty one counts as a single zero byte, so that every prompt has an n-gram."""
        buckets = buckets_for(targets_PE.shape[1])
        return cls(
            [np.asarray(buckets_of(text or b"\0", buckets), dtype=np.intp) for text in texts], targets_PE
        )

    def only(self, chosen_P: npt.NDArray[np.bool_]) -> "Prompts":
        """Return the chosen prompts."""
        return Prompts(
            [self.buckets_P[i] for i in np.flatnonzero(chosen_P).tolist()], self.targets_PE[chosen_P]
        )


@dataclass
class NgramModel:
    """The weights during fitting; ``scale`` and ``temperature`` of the file are determined at the end."""

    weights_EW: Array
    bias_E: Array
    _squares_EW: Array = field(repr=False)

    @classmethod
    def empty(cls, experts: int) -> "NgramModel":
        """Return a model under which all Experts are equally probable."""
        shape = (experts, buckets_for(experts))
        return cls(np.zeros(shape), np.zeros(experts), np.full(shape, _INITIAL_SQUARES))

    def fitted(self, prompts: Prompts, epochs: int, generator: np.random.Generator) -> "NgramModel":
        """Return a copy that was trained on the prompts for ``epochs`` passes, in random order."""
        model = NgramModel(self.weights_EW.copy(), self.bias_E.copy(), self._squares_EW.copy())
        count = len(prompts.buckets_P)
        for _ in range(epochs):
            order_P = generator.permutation(count)
            for start in range(0, count, BATCH):
                model._step(prompts, order_P[start : start + BATCH])
        return model

    def logits(self, buckets_P: Sequence[npt.NDArray[np.intp]]) -> Array:
        """Return the logits of every prompt and Expert, (P, E), before the temperature."""
        rows_N, lengths_P = _rows(buckets_P)
        sums_EP = [
            np.bincount(rows_N, weights=row_W[np.concatenate(buckets_P)], minlength=len(buckets_P))
            for row_W in self.weights_EW
        ]
        logits_PE: Array = np.stack(sums_EP, axis=1) / np.sqrt(lengths_P)[:, None] + self.bias_E
        return logits_PE

    def to_file(self, experts: Sequence[str], temperature: float) -> TableFile:
        """Return the table to write: the weights rounded to signed bytes with one common scale."""
        scale = max(float(np.abs(self.weights_EW).max()) / 127, 1e-9)
        rounded_EW = np.round(self.weights_EW / scale).astype(np.int8)
        return TableFile(
            experts=tuple(experts),
            buckets=self.weights_EW.shape[1],
            bias=tuple(round(float(bias), 6) for bias in self.bias_E),
            scale=scale,
            temperature=temperature,
            weights=base64.b64encode(rounded_EW.tobytes()).decode(),
        )

    def _step(self, prompts: Prompts, chosen_P: npt.NDArray[np.intp]) -> None:
        """Take one AdaGrad step on a batch: the gradient of the cross-entropy is p - target."""
        buckets_P = [prompts.buckets_P[i] for i in chosen_P]
        error_PE = (softmax(self.logits(buckets_P)) - prompts.targets_PE[chosen_P]) / len(chosen_P)
        self.bias_E -= LEARNING_RATE * error_PE.sum(axis=0)
        rows_N, lengths_P = _rows(buckets_P)
        used_U, places_N = np.unique(np.concatenate(buckets_P), return_inverse=True)
        for expert, error_P in enumerate(error_PE.T):
            pull_N = (error_P / np.sqrt(lengths_P))[rows_N]
            gradient_U = np.bincount(places_N, weights=pull_N, minlength=len(used_U))
            self._squares_EW[expert, used_U] += gradient_U**2
            self.weights_EW[expert, used_U] -= (
                LEARNING_RATE * gradient_U / np.sqrt(self._squares_EW[expert, used_U])
            )


def fit_temperature(logits_PE: Array, targets_PE: Array) -> float:
    """Return the temperature under which softmax(logits / t) gives the targets their highest likelihood."""
    candidates = np.exp(np.linspace(np.log(0.05), np.log(50), 200))
    return round(float(min(candidates, key=lambda t: cross_entropy(logits_PE / t, targets_PE))), 4)


def cross_entropy(logits_PE: Array, targets_PE: Array) -> float:
    """Return the mean cross-entropy in nats."""
    shifted_PE = logits_PE - logits_PE.max(axis=1, keepdims=True)
    log_p_PE = shifted_PE - np.log(np.exp(shifted_PE).sum(axis=1, keepdims=True))
    return float(-(targets_PE * log_p_PE).sum(axis=1).mean())


def softmax(logits_PE: Array) -> Array:
    """Return probabilities; rows sum to 1."""
    odds_PE = np.exp(logits_PE - logits_PE.max(axis=1, keepdims=True))
    probabilities_PE: Array = odds_PE / odds_PE.sum(axis=1, keepdims=True)
    return probabilities_PE


def _rows(buckets_P: Sequence[npt.NDArray[np.intp]]) -> tuple[npt.NDArray[np.intp], Array]:
    """Return each n-gram's prompt, and each prompt's number of n-grams."""
    lengths_P = np.array([len(buckets) for buckets in buckets_P])
    return np.repeat(np.arange(len(buckets_P)), lengths_P), lengths_P.astype(np.float64)
