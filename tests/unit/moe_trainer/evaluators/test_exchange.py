"""What a grader may write, and everything that it may not."""

import json
import os
from pathlib import Path

import pytest

from moe_formats.failure import TransientError
from moe_formats.job_config import Grader, Grading
from moe_trainer.evaluators.exchange import (
    INPUT,
    OUTPUT,
    BadOutputError,
    Question,
    parse_verdicts,
    read_verdicts,
    write_questions,
)
from moe_trainer.evaluators.tasks import Item

GRADING = Grading(evaluator="mine", grader=Grader(name="pytest", image="registry.example/pytest:3"))
IDS = {"a", "b"}
GOOD = b'{"id": "a", "score": 1}\n{"id": "b", "score": 0}\n'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        b'{"score":false,"id":"b"}\n{"id":"a","score":true}',
        b'\n{"id": "b", "score": 0.0}\r\n\n  {"id": "a", "score": 1.0}\n\n',
    ],
)
def test_a_verdict_for_each_id_in_any_order(text: bytes) -> None:
    assert parse_verdicts(text, IDS) == {"a": 1.0, "b": 0.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "lacks 2 of 2 ids; the first is 'a'"),
        (b'{"id": "b", "score": 1}', "lacks 1 of 2 ids"),
        (GOOD + b'{"id": "b", "score": 0}', "repeats the id 'b' in line 3"),
        (GOOD + b'{"id": "c", "score": 0}', "line 3 that is not in its input: 'c'"),
        (GOOD + b'{"id": "' + b"c" * 200 + b'", "score": 0}', "is not in its input"),
        (b"1 of 2 are right", "no verdict in line 1"),
        (b'{"id": "a", "score": 1', "no verdict in line 1"),
        (b'["id", "score"]', "not a JSON object"),
        (b'{"id": "a"}', "not a JSON object with id and score"),
        (b'{"id": "a", "score": 1, "why": "it is"}', "not a JSON object with id and score and nothing else"),
        (b'{"id": 1, "score": 1}', "its id is 1"),
        (b'{"id": "a", "score": "1"}', "its score is '1'"),
        (b'{"id": "a", "score": null}', "its score is None"),
        (b'{"id": "a", "score": [1]}', "its score is"),
        (b'{"id": "a", "score": 0.5}', "its score is 0.5"),
        (b'{"id": "a", "score": 2}', "its score is 2"),
        (b'{"id": "a", "score": NaN}', "its score is nan"),
        (b'{"id": "a", "score": 0, "score": 1}', "has the same key twice"),
        (b'{"id": "a", "score": ' + b"[" * 100_000, "no verdict in line 1"),
        (b"\xff\xfe", "no verdict in line 1"),
        (b"\x00" * 9, "no verdict in line 1"),
    ],
)
def test_anything_else_is_refused_in_words(text: bytes, words: str) -> None:
    with pytest.raises(BadOutputError) as refused:
        parse_verdicts(text, IDS)
    assert words in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_failure_names_grader_evaluator_and_remedy_and_may_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(TransientError) as failed:
        read_verdicts(tmp_path, IDS, GRADING)
    for words in ("grader pytest of evaluator mine", "does not exist", "registry.example/pytest:3"):
        assert words in failed.value.message
    assert (failed.value.reason, failed.value.headline().retryable) == ("GraderFailed", True)


def test_output_is_bounded_by_what_was_asked(tmp_path: Path) -> None:
    (tmp_path / OUTPUT).write_bytes(GOOD + b" " * 10_000)
    with pytest.raises(TransientError, match="has more than 768 bytes"):
        read_verdicts(tmp_path, IDS, GRADING)


def test_neither_a_link_nor_a_pipe_nor_a_folder_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(GOOD)
    output = tmp_path / OUTPUT
    output.symlink_to(secret)
    with pytest.raises(TransientError, match="is a link"):
        read_verdicts(tmp_path, IDS, GRADING)
    output.unlink()
    os.mkfifo(output)
    with pytest.raises(TransientError, match="is not a file"):
        read_verdicts(tmp_path, IDS, GRADING)
    output.unlink()
    output.mkdir()
    with pytest.raises(TransientError, match="cannot be read"):
        read_verdicts(tmp_path, IDS, GRADING)


def test_questions_hold_the_record_as_written_and_the_same_answer_is_asked_once(tmp_path: Path) -> None:
    item = Item(
        prompt="p", cluster="c", record={"id": 7, "prompt": "p", "completion": "mine", "deep": [{"a": None}]}
    )
    asked = [Question.of(item, said) for said in ("yes\u2028", "no", "no")]
    write_questions(tmp_path / "0", {question.id: question for question in asked})
    lines = (tmp_path / "0" / INPUT).read_text().split("\n")[:-1]
    assert [json.loads(line)["item"] for line in lines] == [item.record] * 2
    assert {json.loads(line)["completion"] for line in lines} == {"yes\u2028", "no"}
    assert [json.loads(line)["id"] for line in lines] == sorted({question.id for question in asked})
