import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moe_formats.failure import JobError, TransientError, from_exception
from moe_formats.job_report import MAX_HEADLINE_BYTES, Failure, parse_headline
from moe_trainer import main as command_line
from moe_trainer import snapshot

from .conftest import Place


@pytest.fixture
def headline(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = place.root / "termination"
    monkeypatch.setenv("MOE_STORE", str(place.store))
    monkeypatch.setenv("MOE_SOURCES", str(place.sources))
    monkeypatch.setenv("MOE_TERMINATION_LOG", str(path))
    return path


def failure(path: Path) -> Failure:
    found = parse_headline(path.read_text())
    assert isinstance(found, Failure)
    return found


def test_a_job_leaves_its_headline_and_exits_with_zero(
    place: Place, headline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.text("prose", [f"words number {n} and more of them" for n in range(20)])
    monkeypatch.setenv("MOE_JOB_CONFIG", place.job("prose").to_json())
    assert command_line.main(["snapshot"]) == 0
    assert parse_headline(headline.read_text()).kind == "snapshot"


@pytest.mark.parametrize(("given", "said"), [(1.5, "1.5"), ("-Infinity", "finite")])
def test_wrong_input_exits_with_64_and_names_the_field(
    place: Place, headline: Path, monkeypatch: pytest.MonkeyPatch, given: float | str, said: str
) -> None:
    job = json.loads(place.job("prose").to_json())
    job["holdout"]["fraction"] = given
    monkeypatch.setenv("MOE_JOB_CONFIG", json.dumps(job))
    assert command_line.main(["snapshot"]) == 64
    found = failure(headline)
    assert (found.reason, found.retryable) == ("InvalidConfig", False)
    assert "holdout.fraction" in found.message and said in found.message


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/*.txt", "prose/../../x"])
def test_paths_that_lead_out_are_refused(
    place: Place, headline: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    job = json.loads(place.job("prose").to_json())
    job["sources"][0]["path"] = path
    monkeypatch.setenv("MOE_JOB_CONFIG", json.dumps(job))
    assert command_line.main(["snapshot"]) == 64
    assert failure(headline).reason == "PathNotAllowed"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "snapshot"}', '{"kind": "other"}'])
def test_a_config_that_is_none_is_refused(headline: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MOE_JOB_CONFIG", text)
    assert command_line.main(["snapshot"]) == 64
    assert failure(headline).reason == "InvalidConfig"


def test_the_config_of_another_job_is_refused(
    place: Place, headline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_JOB_CONFIG", place.job("prose").to_json())
    assert command_line.main(["distill"]) == 64
    assert "'snapshot'" in failure(headline).message


def test_a_missing_store_is_named(headline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOE_STORE")
    assert command_line.main(["snapshot"]) == 64
    assert "MOE_STORE" in failure(headline).message


def test_what_nobody_expected_is_worth_another_attempt_and_still_reported(
    place: Place, headline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setenv("MOE_JOB_CONFIG", place.job("prose").to_json())
    monkeypatch.setattr(snapshot, "run", broken)
    assert command_line.main(["snapshot"]) == 1
    assert (failure(headline).reason, failure(headline).retryable) == ("Crashed", True)
    assert "Traceback" in capsys.readouterr().err


def test_a_termination_log_that_cannot_be_written_costs_nothing_else(
    place: Place, monkeypatch: pytest.MonkeyPatch, headline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place.text("prose", [f"words number {n} and more of them" for n in range(20)])
    monkeypatch.setenv("MOE_JOB_CONFIG", place.job("prose").to_json())
    monkeypatch.setenv("MOE_TERMINATION_LOG", str(place.root / "no" / "folder"))
    assert command_line.main(["snapshot"]) == 0
    assert "could not be written" in capsys.readouterr().err


@pytest.mark.parametrize("character", ["a", "é", "🙂", '"', "\x01", "\n"])
def test_the_longest_failure_fits_a_termination_message(character: str) -> None:
    text = JobError("DataUnreadable", character * 5000).headline().to_json()
    assert len(text.encode()) <= MAX_HEADLINE_BYTES
    assert parse_headline(text).kind == "failure"


def test_a_full_disk_is_recognised_and_other_errors_keep_their_name() -> None:
    full = from_exception(OSError(28, "No space left on device", "x"))
    assert isinstance(full, TransientError)
    assert full.reason == "DiskFull"
    assert from_exception(ValueError("odd")).message == "ValueError: odd"
    known = JobError("DataEmpty", "nothing")
    assert from_exception(known) is known


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 64), (["fly"], 64), (["train", "x"], 64), (["--help"], 0)]
)
def test_anything_but_a_command_prints_the_usage(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(arguments) == code
    assert (
        "usage: moe-trainer {snapshot,train,evaluate,drift,matrix,grade,distill,compose,handout,serve,digest FOLDER}"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("snapshot", {"torch", "transformers"}), ("component", {"torch", "numpy", "pyarrow"})],
)
def test_what_starts_often_or_runs_in_the_operator_imports_nothing_heavy(
    module: str, heavy: set[str]
) -> None:
    code = f"import sys, moe_trainer.{module}; sys.exit(bool({heavy} & set(sys.modules)))"
    environment = {"PATH": os.environ["PATH"]}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=250).returncode == 0


def test_a_panic_of_a_library_reaches_the_headline_and_an_interruption_does_not(
    place: Place, headline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicException(BaseException):
        """As PyO3 raises it."""

    def ended_by(error: BaseException) -> None:
        def run(*_: object) -> None:
            raise error

        monkeypatch.setattr(snapshot, "run", run)

    monkeypatch.setenv("MOE_JOB_CONFIG", place.job("prose").to_json())
    ended_by(PanicException("index out of bounds"))
    assert command_line.main(["snapshot"]) == 1
    assert failure(headline).message == "PanicException: index out of bounds"
    ended_by(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        command_line.main(["snapshot"])
