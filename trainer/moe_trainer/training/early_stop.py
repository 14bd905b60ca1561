"""Early stop: a run ends when validation no longer improves, and its artefact gets the best weights.

A validation is an improvement if it is more than ``minDelta`` bits per byte below the best one before it. After
``patience`` validations in a row without improvement the run ends. A run that takes all its steps also gets its best
weights.

Which step was the best follows from the validations, so a run that was interrupted ends at the same step as one that was
not. The best weights are part of every checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moe_formats.training_spec import EarlyStop
from moe_trainer.models.causal_model import CausalModel
from moe_trainer.parallel.spread import local
from moe_trainer.training.optimization import trained_parameters


@dataclass(frozen=True)
class Standing:
    """The state of a run with regard to early stop.

    Attributes:
        best: the step with the best validation; None before the first validation.
        since: the number of validations since then.

    """

    best: int | None
    since: int


def standing(validations: Mapping[int, float], rule: EarlyStop) -> Standing:
    """Return the state of a run, given the bits per byte of its validations by step."""
    best: int | None = None
    since = 0
    for step in sorted(validations):
        if best is None or validations[step] < validations[best] - rule.min_delta:
            best, since = step, 0
        else:
            since += 1
    return Standing(best, since)


def is_over(validations: Mapping[int, float], rule: EarlyStop) -> bool:
    """Return whether a run has gone ``patience`` validations without improvement."""
    return standing(validations, rule).since >= rule.patience


class BestWeights:
    """A copy of what is trained, from the best validation, on the same device and cut like the model."""

    def __init__(self, model: CausalModel) -> None:
        """Copy the current weights."""
        self._model = model
        self.parameters = {name: local(weight).detach().clone() for name, weight in self._trained().items()}
        self.biases = [bias.clone() for bias in self._biases()]

    @torch.no_grad()
    def take(self) -> None:
        """Replace the copy by the current weights of the model."""
        for kept, weight in self._pairs():
            kept.copy_(weight)

    @torch.no_grad()
    def put_back(self) -> None:
        """Set the model's weights to the copy."""
        for kept, weight in self._pairs():
            weight.copy_(kept)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        trained = self._trained()
        pairs = [(kept, local(trained[name])) for name, kept in self.parameters.items()]
        return [*pairs, *zip(self.biases, self._biases(), strict=True)]

    def _trained(self) -> dict[str, nn.Parameter]:
        return trained_parameters(self._model)

    def _biases(self) -> list[Tensor]:
        return [mixture.bias_E for mixture in self._model.mixtures if mixture.bias_E is not None]
