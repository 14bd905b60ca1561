"""Evaluators of a pool: named measures of tasks whose solutions can be checked."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from moe_formats.format import Format
from moe_formats.resources.base import Interval, Name, StorePath, cel

#: Names of evaluators; `exactMatch` is a good one for the only evaluator of its kind.
EvaluatorName = Annotated[str, Field(pattern=r"^[a-z][a-zA-Z0-9-]{0,39}$", max_length=40)]


class Evaluator(Format):
    """A named measure: tasks that are put to a revision, and how its answers are checked."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.store) != has(self.claim)",
                "an evaluator needs exactly one of store and claim: keep one and remove the other",
            ),
            (
                "self.measure == 'exactMatch' || self.answerField == 'answer'",
                "answerField belongs to measure exactMatch: remove it, or change the measure",
            ),
            (
                "(self.measure == 'container') == has(self.grader)",
                "measure container needs a grader, and no other has one: name one, or remove it",
            ),
        )
    )

    name: EvaluatorName = Field(
        description="By which Experts ask for it, in `targets.accuracy` and `promotion.evaluators`."
    )
    measure: Literal["exactMatch", "codeParses", "container"] = Field(
        description="What is right. `exactMatch`: the completion is one of the item's answers, but for case, "
        "spacing and a full stop. `codeParses`: prompt and completion together are Python that parses; nothing is "
        "executed. `container`: a grader says it, a program in a container of its own."
    )
    grader: Name | None = Field(
        default=None,
        description="Of measure container: a grader that the platform's owner defined in the chart's values.",
    )
    store: Name | None = Field(
        default=None,
        description="A data store that the platform's owner defined in the chart's values.",
    )
    claim: Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")] | None = Field(
        default=None, description="A PersistentVolumeClaim of this namespace, mounted read-only."
    )
    path: StorePath = Field(
        description="Glob of files beneath the store with an item a line, as JSON, compressed or not. Items that "
        "share a `cluster` count as one piece of evidence. They must not be among the texts that Experts learn from."
    )
    prompt_field: str = Field(
        default="prompt",
        max_length=64,
        description="Field of an item that is put to the model. Default: prompt.",
    )
    answer_field: str = Field(
        default="answer",
        max_length=64,
        description="Field with the answer, or a list of answers that are all right. Default: answer.",
    )
    max_tokens: int = Field(
        default=64, ge=1, le=4096, description="Longest completion, in tokens. Default: 64."
    )
    stop: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default_factory=lambda: ["\n"],
        max_length=8,
        description="Texts that end a completion, and are no part of it. Default: the end of the line.",
    )
    max_items: int = Field(
        default=500,
        ge=20,
        le=10_000,
        description="Of more items than this, so many are put, by a fixed draw. Default: 500.",
    )


class AccuracyTarget(Format):
    """The accuracy that an Expert has to reach."""

    evaluator: EvaluatorName = Field(description="An evaluator of the pool.")
    min: float = Field(ge=0, le=1, description="Smallest lower bound of the accuracy, 0 to 1.")


class TaskSetStatus(Format):
    """The items of an evaluator, frozen with the newest snapshot."""

    evaluator: EvaluatorName = Field(description="Name of the evaluator.")
    path: str = Field(max_length=512, description="Folder beneath the pool's store.")
    digest: str = Field(max_length=71, description="SHA-256 of its manifest.")
    items: int = Field(description="Items that are put to a revision.")


class AccuracyStatus(Format):
    """What an evaluator found of a revision."""

    evaluator: EvaluatorName = Field(description="Name of the evaluator.")
    items: int = Field(description="Items that were put to it.")
    accuracy: Interval = Field(description="Share that it gets right.")
    difference: Interval | None = Field(
        default=None, description="That less the share of what it was compared with, on the same items."
    )
    against: Literal["current", "base"] | None = Field(
        default=None,
        description="What it was compared with: the current revision, or the base of a first one.",
    )
