"""From answers to an accuracy and a difference, with intervals over clusters. Imports no torch."""

from typing import Literal

from moe_trainer.evaluators.answers import Answers
from moe_trainer.job_report import Accuracy, Interval
from moe_trainer.statistics import accuracy
from moe_trainer.statistics.bootstrap import seed_of
from moe_trainer.statistics.clustered import Clustered


def weigh_answers(
    evaluator: str,
    candidate: Answers,
    opponent: Answers | None,
    against: Literal["current", "base"] | None,
) -> Accuracy:
    """Return the candidate's accuracy, and its difference to what stands for the current revision."""
    right = _clustered(candidate)
    share = accuracy.share(right, seed=seed_of("accuracy", candidate.key.to_json()))
    difference = None
    if opponent is not None:
        seed = seed_of("difference", candidate.key.to_json(), opponent.key.to_json())
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


def _clustered(answers: Answers) -> Clustered:
    return Clustered.of(answers.right, answers.clusters)
