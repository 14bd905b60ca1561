"""A user's own program decides which answers are right, in a pod of its own kind, and nothing by failing."""

import json
import string
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stage import Json, Stage, made_up_text

MINE = {"measure": "container", "grader": "alphabet", "store": "corpora", "maxTokens": 4}


@pytest.fixture(scope="module")
def stage(new_stage: Callable[[str], Stage]) -> Iterator[Stage]:
    """A pool with two evaluators of one grader; two Experts that must be right to serve."""
    stage = new_stage("graders")
    for name, alphabet in (("letters", string.ascii_lowercase), ("digits", string.digits)):
        stage.write(name)
        items = [
            {"prompt": made_up_text(name, str(number), words=3).strip(), "alphabet": alphabet}
            for number in range(40)
        ]
        (stage.data / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    evaluators = [{"name": name, "path": f"{name}.jsonl", **MINE} for name in ("letters", "digits")]
    stage.pool(evaluation={"holdout": 0.3, "evaluators": evaluators})
    yield stage
    stage.clear()


def graded(stage: Stage, name: str) -> None:
    targets = {"accuracy": {"evaluator": name, "min": 0.8}}
    stage.expert(name, targets=targets, promotion={"enforcement": "Serve"})


def verdict(stage: Stage, revision: str) -> Json:
    return stage.wait("a verdict", lambda: stage.status(revision, "ExpertRevision").get("verdict"))


@pytest.mark.parametrize(
    ("mood", "words"),
    [("crash", "exit code 1: no module named pytest"), ("lie", "its score is 'yes'")],
)
def test_a_grader_that_fails_is_named_and_decides_nothing(stage: Stage, grader: Path, mood: str, words: str):
    (grader / "mood").write_text(mood)
    graded(stage, "letters")
    failed = stage.wait(
        words,
        lambda: words in (found := stage.condition("letters", "Evaluated")).get("message", "") and found,
    )
    assert (failed["status"], failed["reason"]) == ("False", "GraderFailed")
    assert "grader alphabet" in failed["message"]
    assert "verdict" not in stage.status("letters-1", "ExpertRevision")


def test_what_it_says_is_right_serves_and_what_it_says_is_wrong_does_not(stage: Stage, grader: Path):
    (grader / "mood").write_text("well")
    graded(stage, "letters")
    graded(stage, "digits")
    ready = stage.wait_ready("letters")
    (accuracy,) = ready["status"]["scores"]["accuracies"]
    assert (accuracy["evaluator"], accuracy["items"], accuracy["accuracy"]["value"]) == ("letters", 40, 1.0)
    assert ready["status"]["targets"] == "1/1"
    refused = verdict(stage, "digits-1")
    assert (refused["outcome"], refused["clause"]) == ("Refused", "targets")
    assert "accuracy.digits" in refused["message"]
    assert stage.status("digits").get("currentRevision") is None


def test_a_grader_that_nobody_installed_stalls_with_those_there_are(stage: Stage):
    unknown = {"name": "other", "path": "letters.jsonl", **MINE, "grader": "alphabets"}
    stage.pool("second", evaluation={"holdout": 0.3, "evaluators": [unknown]})
    stage.expert("lost", pool="second", folder="letters", promotion={"evaluators": ["other"]})
    stalled = stage.wait_for("lost", "Stalled", reason="UnknownGrader")
    assert "'alphabets'" in stalled["message"]
    assert "may use: alphabet" in stalled["message"]
