"""Processes that hold a folder open together verify a share each, and so must hold the same files."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.trainer.training.conftest import SMALL

from moe_formats.failure import JobError
from moe_formats.job_config import ArtefactRef
from moe_formats.training_spec import TrainingSpec
from moe_trainer.methods import artefacts, checkpoint_format
from moe_trainer.models.preset_model import Model, initialise
from moe_trainer.parallel.holding import held_together, hold_the_same
from moe_trainer.parallel.layout import Layout
from moe_trainer.parallel.processes import Processes
from moe_trainer.storage import committed
from moe_trainer.storage.committed import Committed
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.manifest import read_manifest
from moe_trainer.text.tokenizer import ByteTokenizer


class Second(Processes):
    """The second of two processes; what the first one sends is given."""

    sent: Any = None

    def from_first(self, value: Any, group: Any = None) -> Any:
        return type(self).sent

    def together(self, work: Callable[[], Any]) -> Any:
        return work()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(committed, "COPIED_BYTES", 0)
    with new_folder(tmp_path / "store", "a1", "artefact") as working:
        for name in "abcd":
            (working / name).write_text(f"weights {name}")
    return tmp_path / "store"


@pytest.fixture
def second(store: Path, monkeypatch: pytest.MonkeyPatch) -> Second:
    with Committed(store, "a1") as first:
        monkeypatch.setattr(Second, "sent", first.stamps())
    return Second(Layout(processes=2), rank=1)


def held(store: Path, processes: Processes) -> Path:
    with ExitStack() as folders:
        digest = read_manifest(store, "a1")[1]
        return held_together(store, "a1", digest, processes, folders)


def swap(path: Path) -> None:
    """Put another file of the same size in the place of one."""
    (path.parent.parent / "evil").write_text("evil" + path.read_text()[4:])
    (path.parent.parent / "evil").rename(path)


def test_a_process_verifies_only_its_share_of_what_the_first_one_holds_too(
    store: Path, second: Second, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    sha256 = committed._sha256
    monkeypatch.setattr(committed, "_sha256", lambda fd: (read.append(fd), sha256(fd))[1])
    held(store, second)
    assert len(read) == 2  # b and d


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_file_that_was_swapped_between_the_processes_is_found_whoever_verifies_it(
    store: Path, second: Second, name: str
) -> None:
    swap(store / "a1" / name)
    with pytest.raises(JobError, match=f"ArtefactCorrupt.*{name} is not what its manifest says"):
        held(store, second)


def test_another_file_with_the_same_bytes_is_accepted_after_it_was_verified(
    store: Path, second: Second, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (store / "a1" / "a").read_bytes()
    (store / "a1" / "a").unlink()
    (store / "a1" / "a").write_bytes(data)
    held(store, second)
    read = []
    sha256 = committed._sha256
    monkeypatch.setattr(committed, "_sha256", lambda fd: (read.append(fd), sha256(fd))[1])
    with Committed(store, "a1") as mine:
        assert [name for name in "abcd" if mine.stamps()[name] != second.sent[name]] == ["a"]
        hold_the_same(mine, second)
        assert len(read) == 4  # all files, since it holds others than the first process
        assert (mine.show() / "a").read_bytes() == data


def test_no_process_starts_from_weights_that_were_swapped_after_the_first_one_verified_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committed, "COPIED_BYTES", 0)
    model = Model(SMALL)
    initialise(model, seed=1)
    digest = checkpoint_format.write(tmp_path, "a1", model, ByteTokenizer(), "{}")
    parent = ArtefactRef(revision="maths-1", path="a1", digest=digest)
    training = TrainingSpec(method="Full", learning_rate=0.01)
    weights = tmp_path / "a1" / "model.safetensors"
    files = sorted(read_manifest(tmp_path, "a1")[0].files)
    said: list[Any] = []  # by the first process to all
    second = 1 - files.index(weights.name) % 2  # the one that does not verify the weights

    class Both(Second):
        def from_first(self, value: Any, group: Any = None) -> Any:
            if self.rank != second:
                said.append(value)
                return value
            return next(heard)

    artefacts.start(tmp_path, parent, training, 1, Both(Layout(processes=2), rank=1 - second)).close()
    heard: Iterator[Any] = iter(said)
    data = bytearray(weights.read_bytes())
    data[-4:] = b"evil"
    (tmp_path / "evil").write_bytes(data)
    (tmp_path / "evil").rename(weights)
    with pytest.raises(JobError, match=r"ArtefactCorrupt.*model.safetensors is not what its manifest says"):
        artefacts.start(tmp_path, parent, training, 1, Both(Layout(processes=2), rank=second))
