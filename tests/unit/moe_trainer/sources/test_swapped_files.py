"""Somebody who can write to a source swaps what lies there, at the worst moment: between listing and reading."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.sockets import make_socket

from moe_formats.evaluator_source import EvaluatorSource
from moe_formats.failure import JobError, TransientError
from moe_formats.job_config import ImportedBase, Source
from moe_trainer.environment import Environment
from moe_trainer.evaluators.tasks import freeze
from moe_trainer.hugging_face.importing import import_base
from moe_trainer.sources.documents import SourceCount, read_source
from moe_trainer.sources.files import File, LocalFiles, files_of

#: Reading a pipe that nobody writes to would last for ever.
pytestmark = pytest.mark.timeout(20)

Swap = Callable[[], object]


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    folder = tmp_path / "corpora"
    (folder / "deep" / "er").mkdir(parents=True)
    for number in range(3):
        (folder / "deep" / "er" / f"{number}.txt").write_text(f"text {number}")
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text("SECRET")
    return folder


def swapped_after_listing(
    monkeypatch: pytest.MonkeyPatch, swap: Swap, after: Callable[..., object] = LocalFiles.matching
) -> None:
    """Have the attacker act once the files are listed and before the first one is opened."""

    def matching(files: LocalFiles, pattern: str) -> object:
        found = after(files, pattern)
        swap()
        return found

    monkeypatch.setattr(LocalFiles, "matching", matching)


def read(claim: Path, pattern: str = "deep/*/*.txt") -> list[str]:
    files = files_of(claim.name, Environment(store=claim.parent / "store", sources=claim.parent))
    source = Source(root=claim.name, path=pattern, format="text")
    return [content.text for content in read_source(files, SourceCount(source))]


def link_to(path: Path, target: Path | str) -> Swap:
    def swap() -> None:
        path.rename(path.parent / ".was-here")
        path.symlink_to(target)

    return swap


def pipe_at(path: Path) -> Swap:
    def swap() -> None:
        path.unlink()
        os.mkfifo(path)

    return swap


@pytest.mark.parametrize("part", ["deep/er/0.txt", "deep/er", "deep"])
@pytest.mark.parametrize("relative", [False, True])
def test_no_text_from_outside_is_read_when_a_part_of_the_path_becomes_a_link(
    claim: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, part: str, relative: bool
) -> None:
    (outside / "er").symlink_to(".")
    target = {"deep/er/0.txt": outside / "0.txt", "deep/er": outside, "deep": outside}[part]
    named = os.path.relpath(target, (claim / part).parent) if relative else target
    swapped_after_listing(monkeypatch, link_to(claim / part, named))
    with pytest.raises(JobError, match=f"PathNotAllowed: corpora/{part} is a link that leads out") as refused:
        read(claim)
    assert not refused.value.retryable


def test_a_link_to_a_file_of_the_system_is_not_read(claim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swapped_after_listing(monkeypatch, link_to(claim / "deep/er/1.txt", "/etc/passwd"))
    with pytest.raises(JobError, match=r"PathNotAllowed: corpora/deep/er/1.txt is a link that leads out"):
        read(claim)


def test_a_file_that_becomes_a_pipe_does_not_stop_the_job(
    claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped_after_listing(monkeypatch, pipe_at(claim / "deep/er/0.txt"))
    with pytest.raises(JobError, match=r"PathNotAllowed: corpora/deep/er/0.txt is a named pipe \(FIFO\)"):
        read(claim)


def test_a_file_that_becomes_a_link_to_a_pipe_does_not_stop_the_job(
    claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(claim / "pipe")
    swapped_after_listing(monkeypatch, link_to(claim / "deep/er/0.txt", "../../pipe"))
    with pytest.raises(JobError, match=r"PathNotAllowed: corpora/deep/er/0.txt is a named pipe \(FIFO\)"):
        read(claim)


def test_a_file_that_becomes_a_socket_a_device_or_a_folder_is_refused_by_its_kind(claim: Path) -> None:
    files = LocalFiles("corpora", claim)
    make_socket(claim / "socket")
    kinds = {"socket": "a socket", "deep": "a directory"}
    if os.getuid() == 0:
        try:
            os.mknod(claim / "device", 0o20600, os.makedev(1, 5))  # /dev/zero, which never ends
            kinds["device"] = "a device"
        except PermissionError:  # the superuser of a sandbox may make none
            pass
    for name, kind in kinds.items():
        with pytest.raises(JobError, match=f"corpora/{name} is {kind}"), files.open(File("corpora", name, 1)):
            pass


def test_a_folder_that_becomes_a_link_while_the_files_are_listed_is_not_followed(
    claim: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def swapping(where: object) -> Iterator[os.DirEntry[str]]:
        found = scandir(where)  # type: ignore[type-var]
        if not (claim / "deep").is_symlink():
            link_to(claim / "deep", outside)()
        return found  # type: ignore[return-value]

    monkeypatch.setattr(os, "scandir", swapping)
    with pytest.raises(JobError, match=r"PathNotAllowed: corpora/deep is a link that leads out"):
        read(claim, "*/*.txt")


def test_a_folder_of_the_path_that_is_gone_is_a_change(claim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swap() -> None:
        shutil.rmtree(claim / "deep")
        (claim / "deep").write_text("a file now")

    swapped_after_listing(monkeypatch, swap)
    with pytest.raises(TransientError, match=r"DataChanged: corpora/deep/er/0.txt"):
        read(claim)


def test_links_in_a_circle_end(claim: Path) -> None:
    (claim / "a").symlink_to("b")
    (claim / "b").symlink_to("a")
    with pytest.raises(JobError, match=r"PathNotAllowed: corpora/[ab] leads through more than 40 links"):
        read(claim, "*")


def test_a_link_back_to_the_root_is_not_walked_without_end(claim: Path) -> None:
    (claim / "deep" / "again").symlink_to("..")
    assert sorted(set(read(claim, "**/*.txt"))) == ["text 0", "text 1", "text 2"]
    assert read(claim, "deep/again/deep/er/1.txt") == ["text 1"]


@pytest.mark.parametrize("name", ["a\nb.txt", "\udcff.txt", "x" * 251 + ".txt", "-rf.txt", " .txt", "..txt"])
def test_names_that_are_hard_to_read_are_read_and_can_be_told(claim: Path, name: str) -> None:
    (claim / name).write_text("hard")
    assert read(claim, "*.txt") == ["hard"]
    (claim / name).unlink()
    os.mkfifo(claim / name)
    with (
        pytest.raises(JobError, match="is a named pipe") as refused,
        LocalFiles("corpora", claim).open(File("corpora", name, 1)),
    ):
        pass
    assert "\n" not in refused.value.message
    refused.value.headline().to_json().encode()


def test_the_links_of_a_mounted_configmap_and_of_a_cache_are_followed(claim: Path) -> None:
    version = claim / "map" / "..2026_01_01"
    version.mkdir(parents=True)
    (version / "key.txt").write_text("of a ConfigMap")
    (claim / "map" / "..data").symlink_to("..2026_01_01")
    (claim / "map" / "key.txt").symlink_to("..data/key.txt")
    assert read(claim, "map/*.txt") == ["of a ConfigMap"]
    (claim / "blobs").mkdir()
    (claim / "blobs" / "0a1b").write_text("of a cache")
    (claim / "snapshots" / "main").mkdir(parents=True)
    (claim / "snapshots" / "main" / "a.txt").symlink_to("../../blobs/0a1b")
    assert read(claim, "snapshots/*/*.txt") == ["of a cache"]
    (claim / "absolute.txt").symlink_to(claim / "blobs" / "0a1b")
    assert read(claim, "absolute.txt") == ["of a cache"]


def items(claim: Path) -> EvaluatorSource:
    lines = (json.dumps({"prompt": f"question {n}", "answer": "yes"}) for n in range(40))
    (claim / "items.jsonl").write_text("\n".join(lines))
    return EvaluatorSource.model_validate(
        {"name": "exam", "root": "corpora", "path": "items.jsonl", "measure": "exactMatch", "max_items": 40}
    )


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_the_items_of_an_evaluator_are_opened_in_the_same_way(
    claim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source = items(claim)
    path = claim / "items.jsonl"
    other = tmp_path / "others.jsonl"
    other.write_text(path.read_text())
    swapped_after_listing(monkeypatch, link_to(path, other) if kind == "link" else pipe_at(path))
    with pytest.raises(JobError, match=r"PathNotAllowed: corpora/items.jsonl is a (link|named pipe)"):
        freeze(source, "pool", Environment(store=tmp_path / "store", sources=tmp_path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_the_files_of_an_imported_base_are_opened_in_the_same_way(
    claim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    (claim / "base").mkdir()
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        (claim / "base" / file).write_text("{}")
        (tmp_path / file).write_text("{}")
    path = claim / "base" / name
    swap = link_to(path, tmp_path / name) if kind == "link" else pipe_at(path)
    swapped_after_listing(monkeypatch, swap)
    base = ImportedBase(root="corpora", path="base", digest="sha256:" + "0" * 64)
    with pytest.raises(JobError, match=f"PathNotAllowed: corpora/base/{name} is a (link|named pipe)"):
        import_base(base, "pool", 512, Environment(store=tmp_path / "store", sources=tmp_path))
    assert not (tmp_path / "store" / "pools" / "pool" / "imports").exists() or not list(
        (tmp_path / "store" / "pools" / "pool" / "imports").iterdir()
    )
