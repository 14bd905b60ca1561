"""Globs and folders that are made so that listing them does not end."""

from pathlib import Path

import pytest

from moe_formats.failure import JobError
from moe_trainer import limits
from moe_trainer.sources.files import LocalFiles, matches


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(30):
        (tmp_path / f"{number:02}.txt").write_text("x")
    return tmp_path


def refused(folder: Path, pattern: str) -> str:
    with pytest.raises(JobError, match="PathNotAllowed") as failed:
        LocalFiles("corpora", folder).matching(pattern)
    assert not failed.value.retryable
    return failed.value.message


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pattern", ["**/" * 8 + "*.none", "**/*/" * 8 + "*.none", "**/a/" * 8 + "*.none"])
def test_a_glob_of_eight_wildcards_for_folders_is_matched_in_time(tmp_path: Path, pattern: str) -> None:
    deepest = tmp_path.joinpath(*["a"] * 60)
    deepest.mkdir(parents=True)
    (deepest / "b.txt").write_text("x")
    assert LocalFiles("corpora", tmp_path).matching(pattern) == []
    assert [file.path for file in LocalFiles("corpora", tmp_path).matching(pattern.replace("none", "txt"))]


@pytest.mark.timeout(20)
def test_a_part_of_many_stars_is_matched_in_time() -> None:
    assert not matches("a" * 250, "*a" * 60 + "*b")
    assert not matches("/".join(["a"] * 500), "/".join(["**", "*"] * 120) + "/b")


def test_a_folder_of_too_many_entries_is_refused_with_the_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ENTRIES_LISTED", 29)
    message = refused(folder, "**/*.none")
    assert "corpora/**/*.none cannot be matched without looking at more than 29 files and folders" in message
    assert "longer folder" in message
    monkeypatch.setattr(limits, "ENTRIES_LISTED", 30)
    assert LocalFiles("corpora", folder).matching("**/*.none") == []


def test_a_glob_that_matches_too_many_files_is_refused_with_the_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FILES_MATCHED", 29)
    assert "corpora/*.txt matches more than 29 files" in refused(folder, "*.txt")
    assert len(LocalFiles("corpora", folder).matching("0*.txt")) == 10


@pytest.mark.parametrize("pattern", ["*" * 1025, "a/" * 513])
def test_a_glob_that_is_too_long_is_refused_with_the_limits(folder: Path, pattern: str) -> None:
    assert "1024 characters in 512 parts are allowed" in refused(folder, pattern)
