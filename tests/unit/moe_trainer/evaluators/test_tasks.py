import gzip
import json
from collections.abc import Callable

import pytest
from tests.unit.moe_trainer.conftest import Place

from moe_formats.evaluator_source import EvaluatorSource
from moe_formats.failure import JobError
from moe_formats.format import digest_of
from moe_formats.job_config import TasksRef
from moe_formats.job_report import TaskSet
from moe_trainer import limits
from moe_trainer.evaluators.tasks import Item, freeze, read_items, read_rules
from moe_trainer.storage.committed import verify

SUMS = [{"prompt": f"{n} + 1 =", "answer": str(n + 1)} for n in range(40)]


def source(**changes: object) -> EvaluatorSource:
    given = {
        "name": "sums",
        "measure": "exactMatch",
        "root": "corpora",
        "path": "tasks/*.jsonl",
        "stop": ["\n"],
    }
    return EvaluatorSource.model_validate(given | changes)


def frozen(place: Place, **changes: object) -> TaskSet:
    return freeze(source(**changes), "pool-uid", place.environment)


def ref(made: TaskSet) -> TasksRef:
    return TasksRef(evaluator=made.evaluator, path=made.path, digest=made.digest)


def test_items_are_frozen_with_their_answers_and_how_they_are_judged(place: Place) -> None:
    place.jsonl("tasks", SUMS)
    made = frozen(place)
    verify(place.store, made.path, made.digest)
    items = read_items(place.store, ref(made))
    assert made.items == len(items) == 40
    assert {(item.prompt, item.answers) for item in items} == {(s["prompt"], (s["answer"],)) for s in SUMS}
    assert len({item.cluster for item in items}) == 40
    rules = read_rules(place.store, ref(made))
    assert (rules.measure, rules.max_tokens, rules.stop) == ("exactMatch", 64, ("\n",))


def test_the_same_items_are_the_same_tasks_in_any_order_and_twice(place: Place) -> None:
    place.jsonl("tasks", SUMS)
    first = frozen(place)
    place.jsonl("tasks", [*reversed(SUMS), *SUMS])
    assert frozen(place) == first
    assert frozen(place, max_tokens=8).digest != first.digest


def test_of_many_items_a_fixed_draw_is_put(place: Place) -> None:
    place.jsonl("tasks", SUMS)
    few = read_items(place.store, ref(frozen(place, max_items=25)))
    assert len(few) == 25
    assert {item.prompt for item in few} <= {str(s["prompt"]) for s in SUMS}


def test_records_may_name_their_fields_and_clusters_and_several_answers(place: Place) -> None:
    records = [{"q": f"{n}?", "a": [str(n), f"{n}.0"], "cluster": n % 20} for n in range(40)]
    place.jsonl("tasks", records)
    items = read_items(place.store, ref(frozen(place, prompt_field="q", answer_field="a")))
    assert len({item.cluster for item in items}) == 20
    assert all(len(item.answers) == 2 for item in items)


@pytest.mark.parametrize(
    ("broken", "parts"),
    [
        ("{", ["tasks/records.jsonl line 41", "not JSON"]),
        ("[1]", ["not a JSON object"]),
        ({"answer": "4"}, ["'prompt' (promptField) is not text"]),
        ({"prompt": "2 + 2 ="}, ["'answer' (answerField)"]),
        ({"prompt": "2 + 2 =", "answer": 4}, ["'answer' (answerField)"]),
        ({"prompt": "2 + 2 =", "answer": []}, ["'answer' (answerField)"]),
        ("[" * 100_000, ["nested too deeply"]),
        (
            '{"prompt": "x", "answer": ' + "1" * 5000 + "}",
            ["line 41", "a whole number of more than 4,300 digits, which is the limit"],
        ),
        (
            '{"prompt": "x", "more": ' + "[" * 500 + "]" * 500 + "}",
            ["nested too deeply: more than 100 levels"],
        ),
    ],
)
def test_a_record_that_is_no_item_is_named_with_its_line_and_field(
    place: Place, broken: object, parts: list[str]
) -> None:
    place.jsonl("tasks", [*SUMS, broken])
    with pytest.raises(JobError, match="DataUnreadable") as failure:
        frozen(place)
    for part in (*parts, "evaluator sums"):
        assert part in failure.value.message


@pytest.mark.parametrize("measure", ["exactMatch", "codeParses", "container"])
@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("prompt", r"a \ud83d", "'prompt' (promptField): character 3 is half of a surrogate pair"),
        ("prompt", r"a\u0000b", "'prompt' (promptField): character 2 is NUL"),
        ("answer", r"\udc00", "'answer' (answerField): character 1 is half of a surrogate pair"),
        ("cluster", r"c\ud800", "'cluster': character 2 is half of a surrogate pair"),
    ],
)
def test_an_item_whose_text_is_none_is_named_with_its_line_and_not_tried_again(
    place: Place, measure: str, field: str, value: str, part: str
) -> None:
    broken = json.dumps({"prompt": "2 + 2 =", "answer": "4", field: "@"}).replace("@", value)
    place.jsonl("tasks", [*SUMS, broken])
    if field == "answer" and measure != "exactMatch":
        if measure == "codeParses":  # which reads no answer
            assert frozen(place, measure=measure).items == 41
            return
        part = "a grader could not read it as JSON"
    with pytest.raises(
        JobError, match=r"DataUnreadable: evaluator sums: corpora/tasks/records.jsonl line 41"
    ) as found:
        frozen(place, measure=measure)
    assert part in found.value.message and not found.value.retryable


def test_a_cluster_that_is_null_is_none(place: Place) -> None:
    """As pandas writes records that lack a value."""
    place.jsonl("tasks", [{**s, "cluster": None} for s in SUMS])
    made = frozen(place)
    place.jsonl("tasks", SUMS)
    assert frozen(place) == made


def test_code_needs_no_answers(place: Place) -> None:
    place.jsonl("tasks", [{"prompt": f"def f{n}():\n"} for n in range(20)])
    assert frozen(place, measure="codeParses").items == 20


def test_too_few_independent_items_and_no_file_are_said_before_anything_is_read(
    place: Place, prose: Callable[..., list[str]]
) -> None:
    place.text("prose", prose(60))
    asked = place.job("prose").model_copy(update={"evaluators": (source(),)})
    with pytest.raises(JobError, match=r"DataMissing: evaluator sums: no file matches corpora/tasks"):
        place.snapshot(asked)
    place.jsonl("tasks", [{**s, "cluster": "all of one"} for s in SUMS])
    with pytest.raises(JobError, match=r"DataEmpty: .* 1 independent items"):
        place.snapshot(asked)
    place.jsonl("tasks", SUMS)
    made = place.snapshot(asked)
    assert [(tasks.evaluator, tasks.items) for tasks in made.tasks] == [("sums", 40)]
    assert made.digest == place.snapshot(place.job("prose")).digest  # items are no part of the data


def test_items_of_another_kind_of_file_are_refused(place: Place) -> None:
    place.jsonl("tasks", SUMS)
    (place.sources / "corpora/tasks/records.jsonl").rename(place.sources / "corpora/tasks/records.jsonl.gz")
    with pytest.raises(JobError, match="not compressed as its name says"):
        frozen(place, path="tasks/*.gz")


def test_items_for_a_grader_keep_the_record_as_it_was_written(place: Place) -> None:
    records = [
        {"prompt": f"{n} + 1 =", "tests": [{"in": None, "out": n}], "text": "\u2028"} for n in range(20)
    ]
    place.jsonl("tasks", records)
    items = read_items(place.store, ref(frozen(place, measure="container")))
    assert sorted((item.record or {} for item in items), key=str) == sorted(records, key=str)
    place.jsonl("tasks", SUMS)
    assert {item.record for item in read_items(place.store, ref(frozen(place)))} == {None}


def test_a_record_that_no_grader_could_read_is_refused(place: Place) -> None:
    place.jsonl("tasks", [*SUMS, {"prompt": "2 + 2 =", "tolerance": float("nan")}])
    with pytest.raises(
        JobError, match=r"DataUnreadable: evaluator sums: .* line 41 .* a grader could not read"
    ):
        frozen(place, measure="container")


def test_a_line_that_is_too_long_is_named_with_its_number_and_the_limit(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RECORD_BYTES", 1000)
    place.jsonl("tasks", [*SUMS, {"prompt": "x" * 5000, "answer": "4"}, *SUMS])
    with pytest.raises(JobError, match=r"records.jsonl line 41 is not an item: longer than 1000 bytes"):
        frozen(place)


def test_a_record_for_a_grader_that_is_nested_deeply_is_refused_and_one_that_is_not_is_read_again(
    place: Place,
) -> None:
    def nested(depth: int) -> list[object]:
        tests = "[" * depth + "]" * depth
        return [f'{{"prompt": "{n} + 1 =", "tests": {tests}}}' for n in range(20)]

    place.jsonl("tasks", nested(99))
    assert len(read_items(place.store, ref(frozen(place, measure="container")))) == 20
    place.jsonl("tasks", nested(100))
    with pytest.raises(JobError, match="line 1 is not an item: nested too deeply"):
        frozen(place, measure="container")


def test_a_draw_is_the_same_however_many_items_there_are(place: Place) -> None:
    records: list[object] = [{"prompt": f"{n} + 1 =", "answer": str(n + 1)} for n in range(500)]
    place.jsonl("tasks", records)
    drawn = read_items(place.store, ref(frozen(place, max_items=20)))
    texts = (
        Item(prompt=f"{n} + 1 =", answers=(str(n + 1),), cluster=item_cluster(n)).to_json()
        for n in range(500)
    )
    assert [item.to_json() for item in drawn] == sorted(texts, key=digest_of)[:20]


def item_cluster(number: int) -> str:
    return digest_of(f"{number} + 1 =")[:80]


def test_items_that_are_too_large_together_are_refused_with_the_limit(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ITEMS_BYTES", 10_000)
    place.jsonl("tasks", [{"prompt": f"{n} " + "x" * 500, "answer": "4"} for n in range(100)])
    with pytest.raises(
        JobError, match=r"DataUnreadable: evaluator sums: .* 10000 are allowed. Lower maxItems"
    ):
        frozen(place, max_items=50)


def test_items_that_unpack_a_thousandfold_are_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNPACKED_FREE_BYTES", 1 << 20)
    (place.sources / "corpora" / "tasks").mkdir()
    path = place.sources / "corpora" / "tasks" / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "x", "answer": "y"}\n' * 100_000))
    with pytest.raises(JobError, match=r"DataUnreadable: corpora/tasks/a.jsonl.gz unpacks to too much"):
        frozen(place, path="tasks/*.gz")
