"""Evaluators of a pool: named measures of tasks whose answers can be checked."""

from typing import Annotated

from pydantic import ConfigDict, Field

from moe_formats.evaluator_source import Measure
from moe_formats.format import Format
from moe_formats.job_config import MIN_CLUSTERS
from moe_formats.names import EvaluatorName, Name
from moe_formats.resources.base import StorePath, cel


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
                "measure container needs a grader, and the other measures take none: name a grader, or remove it",
            ),
        )
    )

    name: EvaluatorName = Field(
        description="Name by which Experts ask for the evaluator, in `targets.accuracy` and `promotion.evaluators`."
    )
    measure: Measure = Field(
        description="How an answer is checked. `exactMatch`: it must equal one of the item's answers, ignoring case, "
        "spacing and a full stop. `codeParses`: prompt and answer together must be Python that parses; nothing is "
        "executed. `container`: a grader, a program in a container of its own, judges it."
    )
    grader: Name | None = Field(
        default=None,
        description="Grader that judges the answers, one of those that the platform's owner defined in the chart's "
        "values. Required for measure container, and not allowed for others. Default: none.",
    )
    store: Name | None = Field(
        default=None,
        description="Data store to read the items from, one of those that the platform's owner defined in the chart's "
        "values. Give either this or claim. Default: none.",
    )
    claim: Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")] | None = Field(
        default=None,
        description="PersistentVolumeClaim in this namespace to read the items from, mounted read-only. It needs the label "
        "`moe-operator.dev/use: source`, unless a data store that the namespace may use names it. Give either this or "
        "store. Default: none.",
    )
    path: StorePath = Field(
        description="Glob of files, relative to the store or claim. Each line of a file is an item, as a JSON object; "
        "files may be compressed. Items that are not independent, such as wordings of one question, should have the same "
        "text in a field `cluster`: a cluster counts as one piece of evidence, and at least 20 are needed. Keep items out "
        "of the texts that Experts learn from; nothing checks this."
    )
    prompt_field: str = Field(
        default="prompt",
        max_length=64,
        description="Field of an item that is put to the model.",
    )
    answer_field: str = Field(
        default="answer",
        max_length=64,
        description="Field of an item with the right answer, or with a list of right answers. Read by measure exactMatch "
        "only.",
    )
    max_tokens: int = Field(
        default=64,
        ge=1,
        le=4096,
        description="Largest number of tokens in an answer; a longer one is cut off.",
    )
    stop: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default_factory=lambda: ["\n"],
        max_length=8,
        description="Texts that end an answer. They are not part of the answer. Default: the end of the line.",
    )
    max_items: int = Field(
        default=500,
        ge=MIN_CLUSTERS,
        le=10_000,
        description="Largest number of items that are used. If there are more, this many are drawn, always the same ones.",
    )


class AccuracyTarget(Format):
    """The accuracy that an Expert has to reach."""

    evaluator: EvaluatorName = Field(description="Name of an evaluator of the pool.")
    min: float = Field(
        ge=0,
        le=1,
        description="Accuracy to reach, 0 to 1. It is met if the lower end of the measured interval is at least this.",
    )
