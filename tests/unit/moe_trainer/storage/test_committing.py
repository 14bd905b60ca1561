"""Somebody who can write to a store swaps and plants things while a folder is written there."""

import os
from pathlib import Path

import pytest

from moe_formats.beneath import RefusedError
from moe_formats.failure import JobError, TransientError
from moe_trainer.storage.committed import verify
from moe_trainer.storage.committing import is_committed, new_folder, unfinished_folder

#: Opening a pipe that nobody reads or writes would last for ever.
pytestmark = pytest.mark.timeout(20)

PATH = "pools/p/a1"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    return tmp_path / "outside"


@pytest.mark.parametrize("part", ["pools", "pools/p"])
def test_nothing_is_written_through_a_folder_that_leads_out(store: Path, outside: Path, part: str) -> None:
    (store / part).parent.mkdir(exist_ok=True)
    (store / part).symlink_to(outside)
    with (
        pytest.raises(RefusedError, match=r"store/pools.* is a link that leads out of 'store'"),
        new_folder(store, PATH, "artefact"),
    ):
        pass
    assert list(outside.iterdir()) == []
    assert not is_committed(store, PATH)


@pytest.mark.parametrize("part", ["pools", "pools/p"])
def test_a_pipe_in_the_place_of_a_folder_is_named(store: Path, part: str) -> None:
    (store / part).parent.mkdir(exist_ok=True)
    os.mkfifo(store / part)
    with (
        pytest.raises(RefusedError, match=rf"store/{part} is no folder"),
        new_folder(store, PATH, "artefact"),
    ):
        pass
    assert not is_committed(store, PATH)


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_takes_the_place_of_a_folder_that_is_being_written_gets_no_file_and_is_not_committed(
    store: Path, outside: Path, kind: str
) -> None:
    with (
        pytest.raises(TransientError, match=r"a1 was replaced by something else while it was committed"),
        new_folder(store, PATH, "artefact") as working,
    ):
        (path,) = (store / "pools" / "p").iterdir()
        assert (working.parent.name, working.name) == ("p", path.name)  # the names that messages give
        path.rename(store / "moved")
        if kind == "link":
            path.symlink_to(outside)
        else:
            path.mkdir()
            (path / "manifest.json").write_text("evil")
        (working / "weights").write_text("secret weights")
    assert list(outside.iterdir()) == []
    assert (store / "moved" / "weights").read_text() == "secret weights"
    assert not is_committed(store, PATH) and list((store / "pools" / "p").iterdir()) == []


def test_folders_above_that_are_swapped_meanwhile_change_nothing(store: Path, outside: Path) -> None:
    with new_folder(store, PATH, "artefact") as working:
        (store / "pools" / "p").rename(store / "moved")
        (store / "pools" / "p").symlink_to(outside)
        (working / "file").write_text("text")
    verify(store, "moved/a1")
    assert list(outside.iterdir()) == []


def test_a_planted_manifest_is_not_taken_for_ours(store: Path) -> None:
    with pytest.raises(FileExistsError), new_folder(store, PATH, "artefact") as working:
        (working / "manifest.json").write_text("evil")
    assert not is_committed(store, PATH) and list((store / "pools" / "p").iterdir()) == []


def test_what_is_checked_is_what_gets_committed(store: Path) -> None:
    """Even if somebody puts a pipe in the place of a file before it is looked at."""
    seen = []

    def check(shown: Path) -> None:
        (path,) = (store / "pools" / "p").iterdir()
        (path / "config.json").unlink()
        os.mkfifo(path / "config.json")
        seen.append((shown / "config.json").read_text())

    with new_folder(store, PATH, "artefact", check=check) as working:
        (working / "config.json").write_text("{}")
    assert seen == ["{}"]
    with pytest.raises(JobError, match=r"config.json is a named pipe"):
        verify(store, PATH)


def test_what_a_check_refuses_is_not_committed(store: Path) -> None:
    def check(shown: Path) -> None:
        raise JobError("BaseMissing", f"{shown.parent.name}/{shown.name[:4]} is no good.")

    with (
        pytest.raises(JobError, match=r"BaseMissing: p/\.a1\. is no good"),
        new_folder(store, PATH, "artefact", check=check) as working,
    ):
        (working / "config.json").write_text("{}")
    assert list((store / "pools" / "p").iterdir()) == []


def test_another_process_writes_into_the_folder_itself_and_through_no_link(
    store: Path, outside: Path
) -> None:
    with new_folder(store, PATH, "checkpoint") as working:
        (working / "tensors").mkdir()
        (working / "swapped").symlink_to(outside)
        with unfinished_folder(store, PATH, f"{working.name}/tensors") as folder:
            (folder / "mine").write_text("1")
        with (
            pytest.raises(RefusedError, match="swapped is a link"),
            unfinished_folder(store, PATH, f"{working.name}/swapped"),
        ):
            pass
        (working / "swapped").unlink()
    assert (store / PATH / "tensors" / "mine").read_text() == "1"
    verify(store, PATH)


def test_nothing_stays_open(store: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a1", "a2"):
        with new_folder(store, name, "artefact") as working:
            (working / "file").write_text("text")
    assert len(os.listdir("/proc/self/fd")) == before
