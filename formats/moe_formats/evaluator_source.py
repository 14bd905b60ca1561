"""What a snapshot Job is told of an evaluator: where its items are, how they are put to a model, how answers are judged."""

from typing import Literal

from pydantic import Field

from moe_formats.format import Format
from moe_formats.paths import RelativePath

Measure = Literal["exactMatch", "codeParses", "container"]


class EvaluatorSource(Format):
    """An evaluator of the pool: where its items are, how they are put to a model, and how answers are judged."""

    name: str = Field(description="Name of the evaluator in the pool.")
    measure: Measure = Field(description="How an answer is judged.")
    root: str = Field(
        description="Name of the data store or claim: a key of MOE_OBJECT_STORES, or a folder in MOE_SOURCES."
    )
    path: RelativePath = Field(
        description="Glob of files that have one JSON object per line, compressed or not."
    )
    prompt_field: str = Field(default="prompt", description="Field of an item that is put to the model.")
    answer_field: str = Field(
        default="answer", description="Field of an item with the right answer, or a list of right answers."
    )
    max_tokens: int = Field(default=64, gt=0, description="Largest number of tokens in an answer.")
    stop: tuple[str, ...] = Field(
        default=(), description="Texts that end an answer. They are not part of the answer."
    )
    max_items: int = Field(
        default=500,
        gt=0,
        description="Largest number of items that are used. If there are more, this many are drawn, always the same ones.",
    )
