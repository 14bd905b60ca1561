"""A model's answers to tasks, item by item: computed once, and shared by all evaluations that need them.

Like a cell of the matrix, they are identified by everything they depend on, and never change.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field

from moe_formats import store
from moe_formats.format import Digest, Format
from moe_formats.job_config import ArtefactRef, TasksRef
from moe_trainer.evaluators.measures import MEASURES
from moe_trainer.evaluators.tasks import Completion, Item, TaskRules, read_items, read_rules
from moe_trainer.storage.cells import read_cell, write_cell

#: The version of generating and measuring; change it when an answer or its measure may change.
ANSWERING = "greedy-v1"

#: The number of characters of a completion that are kept for people to read.
KEPT_CHARACTERS = 2000

#: Has a model complete prompts: (prompts, most tokens, stop texts) -> completions.
Generate = Callable[[Sequence[str], int, Sequence[str]], list[Completion]]


class AnswersKey(Format):
    """What answers depend on, and nothing else."""

    artefact: Digest
    tasks: Digest
    answering: str = ANSWERING
    device: str


class Answers(Format):
    """One model's answers. All lists have one entry per item, in the order of the tasks."""

    key: AnswersKey
    clusters: tuple[str, ...] = Field(description="The cluster of each item.")
    right: tuple[float, ...] | None = Field(
        default=None, description="0 to 1 by the evaluator's measure; absent if a grader judges the answers."
    )
    completions: tuple[str, ...] = Field(
        description="What the model wrote: all of it for graders, otherwise shortened."
    )


def answers_of(
    root: Path, pool_uid: str, model: ArtefactRef, tasks: TasksRef, device: str, load: Callable[[], Generate]
) -> Answers:
    """Return a model's answers, from the store or by asking the model; ``load`` is called only in the latter case."""
    key = AnswersKey(artefact=model.digest, tasks=tasks.digest, device=device)
    kept = kept_answers(root, pool_uid, key)
    if kept is not None:
        return kept
    answers = _ask(key, read_items(root, tasks), read_rules(root, tasks), load())
    write_cell(root, _path(pool_uid, key), answers)
    return answers


def kept_answers(root: Path, pool_uid: str, key: AnswersKey) -> Answers | None:
    """Return the answers in the store, or None."""
    kept = read_cell(root, _path(pool_uid, key), Answers)
    return kept if kept is not None and kept.key == key else None


def _path(pool_uid: str, key: AnswersKey) -> str:
    return f"{store.cells(pool_uid)}/{store.short(key.content_digest())}.json"


def _ask(key: AnswersKey, items: Sequence[Item], rules: TaskRules, generate: Generate) -> Answers:
    completions = generate([item.prompt for item in items], rules.max_tokens, rules.stop)
    clusters = tuple(item.cluster for item in items)
    if rules.measure == "container":
        return Answers(key=key, clusters=clusters, completions=tuple(said.text for said in completions))
    measure = MEASURES[rules.measure]
    return Answers(
        key=key,
        clusters=clusters,
        right=tuple(measure(item, said) for item, said in zip(items, completions, strict=True)),
        completions=tuple(said.text[:KEPT_CHARACTERS] for said in completions),
    )
