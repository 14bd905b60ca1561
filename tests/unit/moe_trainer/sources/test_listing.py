import glob
import itertools
import os
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.sockets import make_socket

from moe_formats.failure import JobError
from moe_trainer import limits
from moe_trainer.sources.files import LocalFiles
from moe_trainer.sources.listing import LeftOut

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


def listed(folder: Path, pattern: str, left_out: list[LeftOut] | None = None) -> list[str]:
    files = LocalFiles("claim", folder)
    found = [file.path for file in files.matching(pattern)]
    if left_out is not None:
        left_out += files.left_out
    assert len(found) == len(set(found))
    return sorted(found)


def real(folder: Path, paths: Iterable[str]) -> set[str]:
    """The files that paths lead to."""
    return {os.path.realpath(folder / path) for path in paths}


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_glob_matches_the_files_that_it_matches_for_pathlib(folder: Path, length: int) -> None:
    for parts in itertools.product(PARTS, repeat=length):
        pattern = "/".join(parts)
        found = listed(folder, pattern)
        expected = {path.relative_to(folder).as_posix() for path in folder.glob(pattern) if path.is_file()}
        if (
            "**" in parts
        ):  # which for pathlib passes no link: what it matches is matched, by one path at least
            assert real(folder, found) >= real(folder, expected), pattern
        else:
            assert found == sorted(expected), pattern


@pytest.mark.parametrize("seed", range(30))
def test_two_stars_reach_the_files_that_the_glob_module_reaches(tmp_path: Path, seed: int) -> None:
    """Which follows links everywhere. Here they lead from a to b only, because otherwise it does not end."""
    draw = random.Random(seed)
    names = ["a", "b", "c.txt", "d.txt"]
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    for _ in range(8):
        made = draw.choice(folders) / draw.choice(names[:2])
        if not made.exists():
            made.mkdir()
            folders.append(made)
    for _ in range(10):
        file = draw.choice(folders) / draw.choice(names[2:])
        file.write_text(str(file))
    in_a, in_b = ([f for f in folders if f.relative_to(tmp_path).parts[0] == top] for top in "ab")
    for number, target in enumerate(draw.choices(in_b, k=4)):
        above = draw.choice(in_a)
        link = above / f"{draw.choice(names)}{number if draw.random() < 0.5 else ''}"
        if not link.exists():
            link.symlink_to(os.path.relpath(target, above))
    for length in (2, 3):
        for parts in itertools.product(("*", "**", "a", "*.txt"), repeat=length):
            pattern = "/".join(parts)
            reached = glob.glob(pattern, root_dir=tmp_path, recursive=True, include_hidden=True)
            expected = [path for path in reached if (tmp_path / path).is_file()] if parts[-1] != "**" else []
            found = listed(tmp_path, pattern)
            assert set(found) <= set(expected), pattern
            assert real(tmp_path, found) == real(tmp_path, expected), pattern


def test_linked_folders_are_read_by_one_star_and_by_two(tmp_path: Path) -> None:
    for number in range(60):
        file = tmp_path / ("data/here" if number < 30 else "elsewhere") / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    (tmp_path / "data" / "linked").symlink_to("../elsewhere")
    assert len(listed(tmp_path, "data/*/*.txt")) == 60
    assert listed(tmp_path, "data/**/*.txt") == listed(tmp_path, "data/*/*.txt")
    assert len(listed(tmp_path, "**/*.txt")) == 60  # each by one path


def test_a_file_that_only_a_links_name_matches_is_reached(tmp_path: Path) -> None:
    (tmp_path / "2024" / "a").mkdir(parents=True)
    (tmp_path / "2024" / "a" / "b.txt").write_text("x")
    (tmp_path / "train").symlink_to("2024")
    (tmp_path / "2024" / "loop").symlink_to(".")
    assert listed(tmp_path, "**/train/**/*.txt") == ["train/a/b.txt"]
    assert listed(tmp_path, "**/loop/a/*.txt") == ["2024/loop/a/b.txt"]


@pytest.mark.timeout(20)
def test_links_in_all_directions_end_and_cost_no_more_than_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / str(number) for number in range(12)]
    for folder in folders:
        folder.mkdir()
        (folder / "a.txt").write_text("x")
    for folder, other in itertools.product(folders, [*folders, tmp_path]):
        (folder / f"to-{other.name}").symlink_to(other)
    monkeypatch.setattr(limits, "ENTRIES_LISTED", 5000)
    assert listed(tmp_path, "**/*.txt") == sorted(f"{number}/a.txt" for number in range(12))
    assert len(real(tmp_path, listed(tmp_path, "**/to-3/**/*.txt"))) == 12


def test_which_path_a_file_is_read_by_does_not_depend_on_the_order_of_a_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.txt").write_text("x")
    (tmp_path / "y").mkdir()
    for name in ("b", "a", "c"):
        (tmp_path / "y" / name).symlink_to("../x")

    class Backwards:
        def __init__(self, found: object) -> None:
            self.entries = sorted(found, key=lambda entry: entry.name, reverse=True)  # type: ignore[call-overload]

        def __enter__(self) -> object:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None: ...

    assert listed(tmp_path, "y/**/*.txt") == ["y/a/a.txt"]
    monkeypatch.setattr(os, "scandir", lambda where: Backwards(scandir(where)))
    assert listed(tmp_path, "y/**/*.txt") == ["y/a/a.txt"]


def test_what_a_glob_reaches_and_nobody_can_read_is_named(folder: Path) -> None:
    make_socket(folder / "a" / "socket")
    (folder / "a" / "lost.txt").symlink_to("missing/b.txt")
    left_out: list[LeftOut] = []
    assert "a/b.txt" in listed(folder, "*/**/*", left_out)
    assert {(at.path, at.what) for at in left_out} == {
        ("claim/a/lost.txt", "is a link to nothing"),
        ("claim/a/socket", "is a socket"),
        ("claim/b/up/pipe", "is a named pipe (FIFO)"),
        ("claim/b/up/dangling", "is a link to nothing"),
    }
    left_out.clear()
    (folder / "a" / "c").symlink_to("c")  # matches nothing, and leads to no folder
    listed(folder, "**/*.txt", left_out)
    assert [at.path for at in left_out] == ["claim/a/lost.txt"]


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
    for pattern in ("*/*.txt", "**/*.txt", "out/*", "readme", "*"):
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
    left_out: list[LeftOut] = []
    assert "a/b.txt" in listed(folder, "**/*.txt", left_out)
    assert [at.path for at in left_out] == ["claim/b"]
    (folder / "b").chmod(0o700)
