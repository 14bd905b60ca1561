"""What a model answered to tasks, item by item: computed once, and shared by every evaluation that asks.

Like a cell of the matrix it is identified by all that it depends on, and never changes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field

from moe_trainer import store
from moe_trainer.evaluation.cells import read_cell, write_cell
from moe_trainer.evaluators.measures import MEASURES
from moe_trainer.evaluators.tasks import Completion, Item, TaskRules, read_items, read_rules
from moe_trainer.formats import Digest, Format
from moe_trainer.job_config import ArtefactRef, TasksRef

#: The version of generating and measuring: change it when an answer or its measure may change.
ANSWERING = "greedy-v1"

#: Characters of a completion that are kept for people to look at.
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
    """One model's answers. All lists have one entry an item, in the order of the tasks."""

    key: AnswersKey
    clusters: tuple[str, ...] = Field(description="Cluster of the item.")
    right: tuple[float, ...] = Field(description="0 to 1, by the evaluator's measure.")
    completions: tuple[str, ...] = Field(description="What the model wrote, cut to some length.")


def answers_of(
    root: Path, pool_uid: str, model: ArtefactRef, tasks: TasksRef, device: str, load: Callable[[], Generate]
) -> Answers:
    """Return a model's answers, from the store or by asking it; ``load`` is called only if it must be asked."""
    key = AnswersKey(artefact=model.digest, tasks=tasks.digest, device=device)
    path = root / store.cells(pool_uid) / f"{store.short(key.content_digest())}.json"
    kept = read_cell(path, Answers)
    if kept is not None and kept.key == key:
        return kept
    answers = _ask(key, read_items(root, tasks), read_rules(root, tasks), load())
    write_cell(path, answers)
    return answers


def _ask(key: AnswersKey, items: Sequence[Item], rules: TaskRules, generate: Generate) -> Answers:
    completions = generate([item.prompt for item in items], rules.max_tokens, rules.stop)
    measure = MEASURES[rules.measure]
    return Answers(
        key=key,
        clusters=tuple(item.cluster for item in items),
        right=tuple(measure(item, said) for item, said in zip(items, completions, strict=True)),
        completions=tuple(said.text[:KEPT_CHARACTERS] for said in completions),
    )
