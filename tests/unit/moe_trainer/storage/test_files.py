"""Somebody who can write to a store puts links, pipes and folders where files are read and written."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from moe_formats.beneath import RefusedError, Root
from moe_trainer.storage import files
from moe_trainer.storage.files import (
    append_to,
    discard,
    discard_unfinished,
    drop,
    make_folder,
    open_file,
    read_file,
    remove,
    replace_file,
    replacing,
    write_file,
)

#: Opening a pipe that nobody reads or writes would last for ever.
pytestmark = pytest.mark.timeout(20)

PATH = "pools/p/held-out.jsonl"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store" / "pools" / "p").mkdir(parents=True)
    (tmp_path / "store" / PATH).write_text("ours")
    return tmp_path / "store"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside" / "p").mkdir(parents=True)
    for name in ("held-out.jsonl", "p/held-out.jsonl"):
        (tmp_path / "outside" / name).write_text("SECRET")
    return tmp_path / "outside"


def everything(folder: Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in folder.rglob("*") if path.is_file()}


def append(store: Path, path: str) -> None:
    with append_to(store, path) as file:
        file.write(b"evil")


#: Every way in which a single file of a store is reached.
WAYS: dict[str, Callable[[Path, str], object]] = {
    "read": lambda store, path: read_file(store, path, 100),
    "open": open_file,
    "replace": lambda store, path: replace_file(store, path, b"evil"),
    "append": append,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", ["pools", "pools/p"])
def test_no_file_is_reached_through_a_folder_that_leads_out(
    store: Path, outside: Path, way: str, part: str
) -> None:
    (store / part).rename(store / "away")
    (store / part).symlink_to(outside)
    before = everything(outside)
    with pytest.raises(RefusedError, match=r"store/pools.* is a link that leads out of 'store'"):
        WAYS[way](store, PATH)
    drop(store, PATH)
    assert everything(outside) == before


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_may_be_a_link_that_stays_in_the_store(store: Path, way: str) -> None:
    (store / "moved").mkdir()
    (store / "pools" / "p").rename(store / "moved" / "here")
    (store / "pools" / "p").symlink_to("../moved/here")
    reached = WAYS[way](store, PATH)
    if way == "read":
        assert reached == b"ours"
    there = {"replace": "evil", "append": "oursevil"}.get(way, "ours")
    assert everything(store / "moved") == {str(store / "moved" / "here" / "held-out.jsonl"): there}


@pytest.mark.parametrize("way", ["replace", "append"])
@pytest.mark.parametrize("kind", ["pipe", "file", "link to nothing"])
def test_what_lies_in_the_place_of_a_folder_is_named(store: Path, way: str, kind: str) -> None:
    (store / "pools" / "p").rename(store / "away")
    match kind:
        case "pipe":
            os.mkfifo(store / "pools" / "p")
        case "file":
            (store / "pools" / "p").write_text("")
        case "link to nothing":
            (store / "pools" / "p").symlink_to("nowhere")
    with pytest.raises(RefusedError, match=r"store/pools/\S+ is no folder: a folder is needed there"):
        WAYS[way](store, PATH)


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_lies_in_the_place_of_a_file_is_replaced_and_never_written_through(
    store: Path, outside: Path, kind: str
) -> None:
    (store / PATH).unlink()
    if kind == "pipe":
        os.mkfifo(store / PATH)
    else:
        (store / PATH).symlink_to(outside / "held-out.jsonl")
    for way in ("read", "append"):
        with pytest.raises(RefusedError, match=r"held-out.jsonl is a (named pipe|link)"):
            WAYS[way](store, PATH)
    replace_file(store, PATH, b"new")
    assert (store / PATH).read_bytes() == b"new" and not (store / PATH).is_symlink()
    assert (outside / "held-out.jsonl").read_text() == "SECRET"


def test_a_pipe_that_somebody_reads_is_not_appended_to(store: Path) -> None:
    (store / PATH).unlink()
    os.mkfifo(store / PATH)
    reader = os.open(store / PATH, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(RefusedError, match="is a named pipe"):
        append(store, PATH)
    os.close(reader)


def test_a_folder_in_the_place_of_a_file_is_named_and_kept(store: Path) -> None:
    (store / PATH).unlink()
    (store / PATH).mkdir()
    for way in ("replace", "append"):
        with pytest.raises(RefusedError, match=r"held-out.jsonl is a directory"):
            WAYS[way](store, PATH)
    assert [path.name for path in (store / "pools" / "p").iterdir()] == ["held-out.jsonl"]


def test_a_folder_that_is_swapped_while_a_file_is_written_gets_nothing(store: Path, outside: Path) -> None:
    with replacing(store, PATH) as file:
        file.write(b"new")
        (store / "pools" / "p").rename(store / "moved")
        (store / "pools" / "p").symlink_to(outside / "p")
    assert (store / "moved" / "held-out.jsonl").read_bytes() == b"new"
    assert everything(outside / "p") == {str(outside / "p" / "held-out.jsonl"): "SECRET"}


def test_files_on_the_way_have_names_that_nobody_can_guess_and_must_be_new(
    store: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for _ in range(3):
        with replacing(store, PATH) as file:
            seen |= {path.name for path in (store / "pools" / "p").iterdir()} - {"held-out.jsonl"}
            file.write(b"x")
    assert len(seen) == 3 and all(len(name.rpartition("-")[2]) == 16 for name in seen)
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "guessed")
    (store / "pools" / "p" / ".held-out.jsonl.new-guessed").symlink_to(outside / "held-out.jsonl")
    with pytest.raises(FileExistsError):
        replace_file(store, PATH, b"evil")
    assert (outside / "held-out.jsonl").read_text() == "SECRET"


@pytest.mark.parametrize("kind", ["pipe", "link", "link to nothing", "file"])
def test_a_new_file_is_never_what_lies_there(tmp_path: Path, kind: str) -> None:
    place, other = tmp_path / "config.json", tmp_path / "other"
    match kind:
        case "pipe":
            os.mkfifo(place)
        case "link":
            other.write_text("kept")
            place.symlink_to(other)
        case "link to nothing":
            place.symlink_to(other)
        case "file":
            place.write_text("kept")
    with pytest.raises(FileExistsError):
        write_file(place, "evil")
    assert "evil" not in everything(tmp_path).values()
    assert other.exists() == (kind == "link")


def test_folders_are_made_where_they_are_missing(tmp_path: Path) -> None:
    replace_file(tmp_path / "new" / "store", "a/b/file", b"1")
    append(tmp_path / "new" / "store", "a/c/file")
    assert (tmp_path / "new" / "store" / "a" / "b" / "file").read_bytes() == b"1"
    with Root(tmp_path) as root, make_folder(root, "x/y") as made, make_folder(root, "x/y") as again:
        assert made.stat("").st_ino == again.stat("").st_ino


def test_what_is_removed_is_never_what_a_link_leads_to(store: Path, outside: Path) -> None:
    target = store / "checkpoints"
    (target / "deep").mkdir(parents=True)
    (target / "deep" / "link").symlink_to(outside)
    (target / "file").symlink_to(outside / "held-out.jsonl")
    os.mkfifo(target / "pipe")
    drop(store, "checkpoints")
    assert not target.exists()
    target.symlink_to(outside)
    drop(store, "checkpoints")
    assert not target.is_symlink() and len(everything(outside)) == 2


def test_a_folder_that_becomes_a_pipe_or_a_link_while_it_is_emptied_holds_nobody_up(
    store: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.unlink
    for plant in (os.mkfifo, lambda path: path.symlink_to(outside)):
        (store / "old").mkdir()

        def swapping(name: str, *, dir_fd: int, plant: Callable[[Path], object] = plant) -> None:
            try:
                real(name, dir_fd=dir_fd)
            except IsADirectoryError:
                (store / "old").rmdir()
                plant(store / "old")
                raise

        with Root(store) as root, monkeypatch.context() as patched:
            patched.setattr(files.os, "unlink", swapping)
            discard(root, "old")
        real(store / "old")
    assert len(everything(outside)) == 2


def test_folders_without_end_are_given_up(store: Path) -> None:
    place = store
    for _ in range(100):
        place /= "d"
        place.mkdir()
    with Root(store) as root, pytest.raises(OSError, match="not empty"):
        remove(root, "d")


def test_what_attempts_left_is_removed_whatever_it_is(store: Path, outside: Path) -> None:
    (store / ".a1.new-0123").symlink_to(outside)
    os.mkfifo(store / ".a1.new-4567")
    (store / ".a1.new-89ab").mkdir()
    for kept in (".a10.new-0123", "a1.new-0", ".other"):
        (store / kept).mkdir()
    with Root(store) as root:
        discard_unfinished(root, "a1")
        assert {".a10.new-0123", "a1.new-0", ".other", "pools"} == {path.name for path in store.iterdir()}
        discard_unfinished(root)
    assert {"a1.new-0", ".other", "pools"} == {path.name for path in store.iterdir()}
    assert len(everything(outside)) == 2


def test_a_file_that_is_too_large_is_not_read(store: Path) -> None:
    assert read_file(store, PATH, 4) == b"ours"
    with pytest.raises(RefusedError, match=r"pools/p/held-out.jsonl has more than 3 bytes"):
        read_file(store, PATH, 3)
