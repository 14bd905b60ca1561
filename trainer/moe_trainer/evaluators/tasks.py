"""The items of an evaluator, read from a source once and frozen in the store under their digest. Imports no torch.

    items.jsonl    one Item per line, in the order of their hash
    tasks.json     TaskRules: the measure, and how answers are generated

A record of the source is a line with a JSON object that has a prompt, for `exactMatch` an answer (a text, or a list of
texts that all count as right), and optionally a `cluster`. Items with the same origin, such as paraphrases of a question,
are not independent evidence: an interval that treated them as independent would be too narrow.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from moe_formats import store
from moe_formats.evaluator_source import EvaluatorSource, Measure
from moe_formats.failure import JobError
from moe_formats.format import Format, canonical_json, digest_of
from moe_formats.job_config import MIN_CLUSTERS, TasksRef
from moe_formats.job_report import TaskSet
from moe_trainer import limits
from moe_trainer.environment import Environment
from moe_trainer.sources.budget import Budget, faults_of
from moe_trainer.sources.compression import decompressed
from moe_trainer.sources.faults import UnusableError, check_text
from moe_trainer.sources.files import File, Files, files_of
from moe_trainer.sources.records import numbered_lines, parse_object
from moe_trainer.storage.committed import Committed
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.files import write_file
from moe_trainer.storage.manifest import read_manifest

ITEMS = "items.jsonl"
RULES = "tasks.json"


class Item(Format):
    """One task."""

    prompt: str
    answers: tuple[str, ...] = Field(
        default=(), description="Texts that count as right; only for exactMatch."
    )
    cluster: str = Field(description="Items that are not independent of each other have the same cluster.")
    record: dict[str, Any] | None = Field(
        default=None, description="The record as its author wrote it, for graders; absent for other measures."
    )


class TaskRules(Format):
    """How a model is asked the items, and how its answers are judged."""

    measure: Measure
    max_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt, up to a stop text; ``cut`` says that the limit of tokens ended it."""

    text: str
    cut: bool


def freeze(source: EvaluatorSource, pool_uid: str, environment: Environment) -> TaskSet:
    """Read an evaluator's items and commit them to the store, unless the same items are there already.

    Raises JobError: DataMissing, DataUnreadable (names the file, the line and the field), DataEmpty.
    """
    files = files_of(source.root, environment)
    drawn = _Draw(source)
    for item in _read(files, source):
        drawn.add(item)
    items = drawn.items()
    _check_clusters(source, {item.cluster for item in items.values()})
    rules = TaskRules(measure=source.measure, max_tokens=source.max_tokens, stop=source.stop)
    content = "".join(text + "\n" for text in items)
    folder = store.tasks(pool_uid, digest_of(canonical_json([rules.to_json(), content])))
    with new_folder(environment.store, folder, "tasks") as working:
        write_file(working / ITEMS, content)
        write_file(working / RULES, rules.to_json())
    print(f"evaluator {source.name}: {len(items)} of {drawn.read} items are used", flush=True)
    digest = read_manifest(environment.store, folder)[1]
    return TaskSet(evaluator=source.name, path=folder, digest=digest, items=len(items))


def read_items(root: Path, tasks: TasksRef) -> list[Item]:
    """Return the items of a committed folder; raises JobError (ArtefactCorrupt)."""
    with Committed(root, tasks.path, tasks.digest) as held:
        lines = held.read(ITEMS).decode().split("\n")
    return [Item.model_validate_json(line) for line in lines if line]


def read_rules(root: Path, tasks: TasksRef) -> TaskRules:
    """Return the rules of a committed folder; raises JobError (ArtefactCorrupt)."""
    with Committed(root, tasks.path, tasks.digest) as held:
        return TaskRules.model_validate_json(held.read(RULES))


def _read(files: Files, source: EvaluatorSource) -> Iterator[Item]:
    matching = files.matching(source.path)
    for path, what in files.left_out:
        print(f"evaluator {source.name}: {path} {what}", flush=True)
    if not matching:
        raise JobError(
            "DataMissing",
            f"evaluator {source.name}: no file matches {source.root}/{source.path}. Correct its path in the "
            "pool's spec.evaluation.evaluators, or put the items there.",
        )
    budget = Budget()
    for file in matching:
        yield from _read_file(files, file, source, budget)


def _read_file(files: Files, file: File, source: EvaluatorSource, budget: Budget) -> Iterator[Item]:
    with files.open(file) as raw, faults_of(file), decompressed(raw, file.path, budget) as stream:
        for number, line in numbered_lines(stream):
            where = f"{file} line {number}"
            try:
                record = parse_object(line)
            except UnusableError as fault:
                raise _unreadable(source, where, fault.what) from None
            yield _item(record, where, source)


class _Draw:
    """The items with the smallest digests among all that are read; no others are held."""

    def __init__(self, source: EvaluatorSource) -> None:
        self._source = source
        self._items: dict[str, Item] = {}
        self._bytes = 0
        self.read = 0  #: The number of items that were read.

    def add(self, item: Item) -> None:
        """Take an item into the draw; raises JobError (DataUnreadable) if the items are too large together."""
        self.read += 1
        text = item.to_json()
        if text in self._items:
            return
        self._items[text] = item
        self._bytes += len(text)
        if self._bytes > limits.ITEMS_BYTES or len(self._items) > 2 * self._source.max_items:
            self._items = self.items()
            self._bytes = sum(map(len, self._items))
        if self._bytes > limits.ITEMS_BYTES:
            raise JobError(
                "DataUnreadable",
                f"evaluator {self._source.name}: {len(self._items)} of its items have {self._bytes} bytes together, but "
                f"{limits.ITEMS_BYTES} are allowed. Lower maxItems in the pool's spec.evaluation.evaluators, or shorten the "
                "items.",
            )

    def items(self) -> dict[str, Item]:
        """Return the items that are drawn, by their JSON, in the order of its digest."""
        drawn = sorted(self._items, key=digest_of)[: self._source.max_items]
        return {text: self._items[text] for text in drawn}


def _item(record: dict[str, Any], where: str, source: EvaluatorSource) -> Item:
    prompt = record.get(source.prompt_field)
    if not isinstance(prompt, str) or not prompt.strip():
        raise _unreadable(source, where, f"its {source.prompt_field!r} (promptField) is not text")
    _check(prompt, f"its {source.prompt_field!r} (promptField)", where, source)
    answers = _answers(record, where, source) if source.measure == "exactMatch" else ()
    cluster = record.get("cluster")
    if cluster is None:
        cluster = digest_of(" ".join(prompt.split()))
    if cluster != "":
        _check(str(cluster), "its 'cluster'", where, source)
    kept = _as_written(record, where, source) if source.measure == "container" else None
    return Item(prompt=prompt, answers=answers, cluster=str(cluster)[:80], record=kept)


def _check(text: str, field: str, where: str, source: EvaluatorSource) -> None:
    """Raise JobError (DataUnreadable) for what could be no text of a source either."""
    try:
        check_text(text)
    except UnusableError as fault:
        raise _unreadable(source, where, f"{field}: {fault.what}") from None


def _as_written(record: dict[str, Any], where: str, source: EvaluatorSource) -> dict[str, Any]:
    try:
        canonical_json(record).encode()
    except ValueError as error:
        raise _unreadable(source, where, f"a grader could not read it as JSON ({error!s:.100})") from None
    return record


def _answers(record: dict[str, Any], where: str, source: EvaluatorSource) -> tuple[str, ...]:
    found = record.get(source.answer_field)
    given = found if isinstance(found, list) else [found]
    answers = [answer for answer in given if isinstance(answer, str) and answer.strip()]
    if not answers or len(answers) < len(given):
        what = f"its {source.answer_field!r} (answerField) is neither a text nor a list of texts"
        raise _unreadable(source, where, what)
    for answer in answers:
        _check(answer, f"its {source.answer_field!r} (answerField)", where, source)
    return tuple(answers)


def _check_clusters(source: EvaluatorSource, clusters: set[str]) -> None:
    if len(clusters) < MIN_CLUSTERS:
        raise JobError(
            "DataEmpty",
            f"evaluator {source.name}: {source.root}/{source.path} holds {len(clusters)} independent "
            f"items (prompts or clusters), but an interval needs {MIN_CLUSTERS}. Add items.",
        )


def _unreadable(source: EvaluatorSource, where: str, what: str) -> JobError:
    return JobError(
        "DataUnreadable",
        f"evaluator {source.name}: {where} is not an item: {what}. An item is a JSON object on one line with "
        f"{source.prompt_field!r}"
        + (f" and {source.answer_field!r}" if source.measure == "exactMatch" else "")
        + ": correct the file, or the fields' names in the pool's spec.evaluation.evaluators.",
    )
