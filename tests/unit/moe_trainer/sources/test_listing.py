import itertools
import os
from pathlib import Path

import pytest

from moe_formats.failure import JobError
from moe_trainer.sources.files import LocalFiles

PARTS = ("*", "**", "a", "b.txt", "?", "[ab]*", ".*", "way")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "claim"
    for name in ("b.txt", "a/b.txt", "a/a/b.txt", "a/a/b", ".hidden", "a/.h/b.txt", "b/a/x", "[ab]"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text("x")
    (made / "way").symlink_to("a/a")
    (made / "b" / "up").symlink_to("..")
    (made / "link.txt").symlink_to("a/b.txt")
    (made / "dangling").symlink_to("nowhere")
    os.mkfifo(made / "pipe")
    return made


def listed(folder: Path, pattern: str) -> list[str]:
    found = [file.path for file in LocalFiles("claim", folder).matching(pattern)]
    assert len(found) == len(set(found))
    return sorted(found)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_glob_matches_the_files_that_it_matches_for_pathlib(folder: Path, length: int) -> None:
    for parts in itertools.product(PARTS, repeat=length):
        pattern = "/".join(parts)
        expected = {path.relative_to(folder).as_posix() for path in folder.glob(pattern) if path.is_file()}
        assert listed(folder, pattern) == sorted(expected), pattern


@pytest.mark.parametrize("pattern", ["", ".", "/etc/*", "a/../*", "..", "a**", "**b/*"])
def test_what_is_no_glob_beneath_a_root_is_refused(folder: Path, pattern: str) -> None:
    with pytest.raises(JobError, match="PathNotAllowed"):
        listed(folder, pattern)


def test_a_link_out_of_the_root_matters_only_where_it_matches(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret.txt").write_text("x")
    (folder / "readme").symlink_to(tmp_path / "secret.txt")
    assert "a/b.txt" in listed(folder, "*/*.txt")  # a link to a file is no folder to look into
    assert "b.txt" in listed(folder, "**/*.txt")
    (folder / "out").symlink_to(tmp_path / "secret")
    for pattern in ("*/*.txt", "out/*", "readme", "*"):
        with pytest.raises(JobError, match=r"PathNotAllowed: .* is a link that leads out of 'claim'"):
            listed(folder, pattern)


@pytest.mark.timeout(20)
def test_many_wildcards_list_no_folder_twice(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a"] * 60)
    deep.mkdir(parents=True)
    (deep / "b.txt").write_text("x")
    assert listed(tmp_path, "/".join(["**"] * 12) + "/**/*.txt") == ["a/" * 60 + "b.txt"]
    assert listed(tmp_path, "/".join(["**", "a"] * 12) + "/b.txt") == ["a/" * 60 + "b.txt"]
    assert listed(tmp_path, "/".join(["**", "*"] * 12) + "/c.txt") == []


def test_folders_that_are_nested_without_end_are_refused(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(130):
            os.mkdir("a", dir_fd=here)
            deeper = os.open("a", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
    finally:
        os.close(here)
    with pytest.raises(JobError, match=r"PathNotAllowed: .* lies more than 128 folders deep: name a folder"):
        listed(tmp_path, "**/*.txt")


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser may list every folder")
def test_a_folder_that_may_not_be_listed_matches_nothing(folder: Path) -> None:
    (folder / "b").chmod(0)
    assert "a/b.txt" in listed(folder, "**/*.txt")
    (folder / "b").chmod(0o700)
