"""Computes a model's accuracy and its difference to another model, with intervals over clusters. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from moe_formats.job_report import Accuracy, Interval
from moe_trainer.evaluators.answers import Answers
from moe_trainer.statistics import accuracy
from moe_trainer.statistics.bootstrap import seed_of
from moe_trainer.statistics.clustered import Clustered


@dataclass(frozen=True)
class Judged:
    """One model's answers, each with how right it is, 0 to 1."""

    answers: Answers
    right: Sequence[float]

    @property
    def label(self) -> str:
        """Return what identifies the answers; it seeds the bootstrap."""
        return self.answers.key.to_json()


def weigh_answers(
    evaluator: str,
    candidate: Judged,
    opponent: Judged | None,
    against: Literal["current", "base"] | None,
) -> Accuracy:
    """Return the candidate's accuracy, and its difference to the opponent's if there is one."""
    right = _clustered(candidate)
    share = accuracy.share(right, seed=seed_of("accuracy", candidate.label))
    difference = None
    if opponent is not None:
        seed = seed_of("difference", candidate.label, opponent.label)
        found = accuracy.difference(right, _clustered(opponent), seed=seed)
        difference = Interval(
            value=found.value, lower=found.lower, upper=found.upper, clusters=found.clusters
        )
    return Accuracy(
        evaluator=evaluator,
        items=len(candidate.right),
        accuracy=Interval(value=share.value, lower=share.lower, upper=share.upper, clusters=share.clusters),
        difference=difference,
        against=against if opponent is not None else None,
    )


def _clustered(judged: Judged) -> Clustered:
    return Clustered.of(judged.right, judged.answers.clusters)
