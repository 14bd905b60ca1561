"""Early stop: a run ends when validation no longer gets better, and its artefact is the best it was.

A validation is better if it is at least ``minDelta`` bits per byte below the best before it. After ``patience``
validations in a row that are not, the run ends; one that takes all of its steps keeps its best weights as well.

Which step was the best follows from the validations, so a run that was interrupted stops where it would have.
The best weights are part of every checkpoint.
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
    """Where a run stands.

    Attributes:
        best: the step with the best validation; None before the first.
        since: validations since then.

    """

    best: int | None
    since: int


def standing(validations: Mapping[int, float], rule: EarlyStop) -> Standing:
    """Return where a run stands, from step to bits per byte."""
    best: int | None = None
    since = 0
    for step in sorted(validations):
        if best is None or validations[step] < validations[best] - rule.min_delta:
            best, since = step, 0
        else:
            since += 1
    return Standing(best, since)


def is_over(validations: Mapping[int, float], rule: EarlyStop) -> bool:
    """Say whether a run has got no better for long enough."""
    return standing(validations, rule).since >= rule.patience


class BestWeights:
    """What is trained, as it was at the best validation: a copy in the model's own memory and cut."""

    def __init__(self, model: CausalModel) -> None:
        """Copy the weights as they are now."""
        self._model = model
        self.parameters = {name: local(weight).detach().clone() for name, weight in self._trained().items()}
        self.biases = [bias.clone() for bias in self._biases()]

    @torch.no_grad()
    def take(self) -> None:
        """Copy the weights of the model."""
        for kept, weight in self._pairs():
            kept.copy_(weight)

    @torch.no_grad()
    def put_back(self) -> None:
        """Give the model the weights that were kept."""
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
