"""The files that are exchanged with a grader: questions, and verdicts, which are not trusted.

    input.jsonl     {"id": "…", "item": the record as its author wrote it, "completion": "…"}    one question per line
    output.jsonl    {"id": "…", "score": 0 or 1}                                                 one verdict per line

A question's id is a digest of its content. So if two models give the same answer, it is asked once, and a grader cannot
tell whose it is. If anything is wrong with the output, nothing in it counts for or against a model.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from moe_formats.beneath import RefusedError, Root
from moe_formats.failure import TransientError
from moe_formats.format import Format, canonical_json, digest_of
from moe_formats.job_config import Grading
from moe_trainer.evaluators.tasks import Item
from moe_trainer.storage.files import replace_file

INPUT = "input.jsonl"
OUTPUT = "output.jsonl"

#: Most bytes of a verdict's line on average: an id, a digit, and whatever spaces the grader writes.
MAX_LINE_BYTES = 256


class Question(Format):
    """One line of the input."""

    id: str
    item: dict[str, Any]
    completion: str

    @classmethod
    def of(cls, item: Item, completion: str) -> "Question":
        """Return the question whether a completion is a right answer to an item."""
        asked = {"item": item.record or {}, "completion": completion}
        return cls(id=digest_of(canonical_json(asked)).removeprefix("sha256:")[:24], **asked)


class BadOutputError(ValueError):
    """What is wrong with a grader's output; the text continues a sentence that begins with "its output"."""


def write_questions(folder: Path, questions: Mapping[str, Question]) -> None:
    """Write the questions in the order of their ids, which reveals nothing about the models."""
    lines = (questions[key].to_json() + "\n" for key in sorted(questions))
    replace_file(folder.parent, f"{folder.name}/{INPUT}", "".join(lines).encode())


def read_verdicts(folder: Path, asked: Iterable[str], grading: Grading) -> dict[str, float]:
    """Return the score of every id that was asked; raises TransientError (GraderFailed) if anything is wrong."""
    ids = set(asked)
    try:
        return parse_verdicts(_read(folder, limit=(len(ids) + 1) * MAX_LINE_BYTES), ids)
    except BadOutputError as error:
        raise TransientError(
            "GraderFailed",
            f"grader {grading.grader.name} of evaluator {grading.evaluator}: its output {error}. Nothing in it counts "
            f"for or against the model. Correct the program in image {grading.grader.image}: it has to write one "
            'line {"id": …, "score": 0 or 1} to MOE_GRADER_OUTPUT for each line of MOE_GRADER_INPUT',
        ) from None


def parse_verdicts(text: bytes, ids: set[str]) -> dict[str, float]:
    """Return the score of each id; raises BadOutputError unless every id has exactly one."""
    verdicts: dict[str, float] = {}
    for number, line in enumerate(text.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            key, score = _verdict(line)
        except (ValueError, RecursionError) as error:
            raise BadOutputError(f"has no verdict in line {number}: {error!s:.100}") from None
        if key not in ids:
            raise BadOutputError(f"has an id in line {number} that is not in its input: {key!r:.40}")
        if key in verdicts:
            raise BadOutputError(f"repeats the id {key!r} in line {number}")
        verdicts[key] = score
    if missing := sorted(ids - verdicts.keys()):
        raise BadOutputError(f"lacks {len(missing)} of {len(ids)} ids; the first is {missing[0]!r}")
    return verdicts


def _verdict(line: bytes) -> tuple[str, float]:
    found = json.loads(line.decode(), object_pairs_hook=_object)
    if not isinstance(found, dict) or set(found) != {"id", "score"}:
        raise ValueError("it is not a JSON object with id and score and nothing else")
    key, score = found["id"], found["score"]
    if not isinstance(key, str):
        raise ValueError(f"its id is {key!r}, which is not a string")
    if not isinstance(score, bool | int | float) or score not in (0, 1):
        raise ValueError(f"its score is {score!r}, but must be 0 or 1, or false or true")
    return key, float(score)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has the same key twice")
    return found


def _read(folder: Path, *, limit: int) -> bytes:
    """Return the bytes of the output, without following a link or waiting for a pipe that a grader may have put there."""
    try:
        with Root(folder.parent) as gradings:
            text = gradings.read(f"{folder.name}/{OUTPUT}", limit + 1, links=False)
    except RefusedError as error:
        raise BadOutputError(f"cannot be read: it {error.what}, which is not a file") from None
    except FileNotFoundError:
        raise BadOutputError("does not exist") from None
    except OSError as error:
        raise BadOutputError(f"cannot be read ({error.strerror})") from None
    if len(text) > limit:
        raise BadOutputError(f"has more than {limit} bytes, which is too much for this number of answers")
    return text
