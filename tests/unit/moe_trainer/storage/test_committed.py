import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.sockets import make_socket

from moe_formats.failure import JobError
from moe_trainer import limits
from moe_trainer.storage import committed
from moe_trainer.storage.committed import Committed, opened, verify
from moe_trainer.storage.committing import new_folder
from moe_trainer.storage.manifest import read_manifest

#: Opening a pipe that nobody writes to would last for ever.
pytestmark = pytest.mark.timeout(20)

PATH = "pools/p/a1"


@pytest.fixture(params=["copied", "by descriptor"], autouse=True)
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a file of a few bytes counts as large; every test has to hold for both."""
    if request.param == "by descriptor":
        monkeypatch.setattr(committed, "COPIED_BYTES", 0)
    return bool(request.param == "by descriptor")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with new_folder(tmp_path / "store", PATH, "artefact") as working:
        (working / "config.json").write_text('{"good": true}')
        (working / "deep").mkdir()
        (working / "deep" / "weights").write_bytes(b"good weights")
    return tmp_path / "store"


@pytest.fixture
def folder(store: Path) -> Path:
    return store / PATH


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_the_private_folder_holds_exactly_what_the_manifest_lists(store: Path, folder: Path) -> None:
    digest = read_manifest(folder.parent, folder.name)[1]
    before = open_descriptors()
    with opened(store, PATH, digest) as shown:
        assert sorted(path.relative_to(shown).as_posix() for path in shown.rglob("*")) == [
            "config.json",
            "deep",
            "deep/weights",
        ]
        assert (shown / "deep" / "weights").read_bytes() == b"good weights"
        assert (shown.parent.name, shown.name) == ("p", "a1")  # the names that messages give
        assert store not in shown.parents
    assert not shown.parent.parent.exists()
    assert open_descriptors() == before


def add_file(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("added")


ADDED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a template": ("chat_template.jinja", add_file),
    "weights": ("pytorch_model.bin", add_file),
    "a hidden file": (".hidden", add_file),
    "in a listed folder": ("deep/more.safetensors", add_file),
    "an empty folder": ("empty", Path.mkdir),
    "a pipe": ("pipe", os.mkfifo),
    "a pipe named as by NFS": (".nfs0123", os.mkfifo),
    "a socket": ("socket", make_socket),
    "a link": ("link", lambda path: path.symlink_to("config.json")),
    "a link to nothing": ("link", lambda path: path.symlink_to("nowhere")),
    "a link to a folder": ("folder", lambda path: path.symlink_to("/etc")),
    "a name with a line break": ("a\nb", add_file),
}


@pytest.mark.parametrize("what", ADDED)
def test_whatever_was_added_is_named(store: Path, folder: Path, what: str) -> None:
    name, add = ADDED[what]
    add(folder / name)
    named = name.replace("\n", r"\\n")
    with pytest.raises(
        JobError, match=f"ArtefactCorrupt: a1 in p .*holds {named}, which its manifest does not list"
    ) as refused:
        verify(folder.parent, folder.name)
    assert not refused.value.retryable
    with pytest.raises(JobError, match="ArtefactCorrupt"), opened(store, PATH):
        pass
    with pytest.raises(JobError, match="ArtefactCorrupt"):
        Committed(store, PATH)


def test_what_a_server_of_nfs_keeps_of_a_removed_file_is_no_addition_and_is_not_shown(
    store: Path, folder: Path
) -> None:
    (folder / ".nfs000000000000a1b20000001c").write_text("removed while it was open")
    with opened(store, PATH) as shown:
        assert [path.name for path in shown.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["config.json", "deep/weights", "manifest.json"])
@pytest.mark.parametrize("kind", ["link outside", "link inside", "pipe", "folder", "socket"])
def test_a_listed_file_must_be_a_regular_file(store: Path, folder: Path, name: str, kind: str) -> None:
    path = folder / name
    same = folder.parent / "same-bytes"
    path.rename(same)
    match kind:
        case "link outside":
            path.symlink_to(same)
        case "link inside":
            path.symlink_to(path.parent.joinpath("other"))
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "socket":
            make_socket(path)
    with pytest.raises(JobError, match=f"ArtefactCorrupt.*{name}"):
        verify(folder.parent, folder.name)
    with pytest.raises(JobError, match="ArtefactCorrupt"), opened(store, PATH):
        pass


@pytest.mark.parametrize("part", ["pools", "pools/p", PATH])
def test_a_folder_that_is_reached_by_a_link_out_of_the_store_is_refused(
    store: Path, tmp_path: Path, part: str
) -> None:
    (store / part).rename(tmp_path / "elsewhere")
    (store / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JobError, match=r"ArtefactCorrupt.*its path is a link that leads out"):
        Committed(store, PATH)
    (store / part).unlink()
    (store / "moved").mkdir()
    (tmp_path / "elsewhere").rename(store / "moved" / "here")
    (store / part).symlink_to(
        store / "moved" / "here"
    )  # a link that stays in the store is a place like another
    with opened(store, PATH) as shown:
        assert (shown / "config.json").read_text() == '{"good": true}'


@pytest.mark.parametrize("path", ["../outside", "pools/../../outside", "/etc"])
def test_no_path_leads_out_of_the_store(store: Path, tmp_path: Path, path: str) -> None:
    (store / PATH).rename(tmp_path / "outside")
    with pytest.raises(JobError, match="ArtefactCorrupt"):
        Committed(store, path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../b", "", ".", "a//b", "a/", "a/./b"])
def test_a_manifest_lists_only_plain_names(folder: Path, name: str) -> None:
    manifest = read_manifest(folder.parent, folder.name)[0]
    entry = manifest.files["config.json"]
    changed = manifest.model_copy(update={"files": {**manifest.files, name: entry}})
    (folder / "manifest.json").write_text(changed.to_json())
    with pytest.raises(JobError, match=r"ArtefactCorrupt.*names files outside of it"):
        verify(folder.parent, folder.name)


def test_files_and_folders_that_are_swapped_after_verification_are_not_read(
    store: Path, folder: Path, tmp_path: Path
) -> None:
    with opened(store, PATH) as shown:
        for name in ("config.json", "deep/weights"):
            (tmp_path / "evil").write_text("evil")
            (tmp_path / "evil").rename(folder / name)
        assert (shown / "config.json").read_text() == '{"good": true}'
        folder.rename(tmp_path / "moved")
        folder.symlink_to("/etc")
        assert (shown / "deep" / "weights").read_bytes() == b"good weights"


def test_a_file_that_is_swapped_before_it_is_opened_is_verified_as_it_is(store: Path, folder: Path) -> None:
    with Committed(store, PATH) as held:
        (folder / "config.json").unlink()
        (folder / "config.json").symlink_to("/etc/passwd")
        with pytest.raises(JobError, match=r"ArtefactCorrupt.*config.json is a link"):
            held.read("config.json")
        (folder / "deep" / "weights").write_bytes(b"evil weights")
        with pytest.raises(JobError, match=r"ArtefactCorrupt.*deep/weights is not what its manifest says"):
            held.read("deep/weights")


def test_a_file_that_is_written_to_after_verification_is_not_used(
    store: Path, folder: Path, large: bool
) -> None:
    weights = folder / "deep" / "weights"

    def write() -> None:
        before = weights.stat()
        with weights.open("r+b") as file:
            file.write(b"evil")
        os.utime(
            weights, ns=(before.st_atime_ns, before.st_mtime_ns)
        )  # which hides it from whoever asks for mtime

    def read_after_writing() -> bytes:
        with opened(store, PATH) as shown:
            write()
            return (shown / "deep" / "weights").read_bytes()

    if large:
        with pytest.raises(JobError, match=r"ArtefactCorrupt.*deep/weights was written to while it was read"):
            read_after_writing()
    else:
        assert read_after_writing() == b"good weights"


def test_a_change_of_a_files_owner_or_links_is_no_change_of_its_bytes(store: Path, folder: Path) -> None:
    weights = folder / "deep" / "weights"
    with Committed(store, PATH) as held:
        held.verify()
        before = weights.stat()
        os.chown(weights, os.getuid(), os.getgid())  # as kubelet does for fsGroup
        os.link(weights, folder.parent / "another-name")
        changed = weights.stat()
        assert changed.st_ctime_ns > before.st_ctime_ns and changed.st_nlink == 2
        held.check_unchanged()
        assert (held.show() / "deep" / "weights").read_bytes() == b"good weights"
    assert verify(store, PATH) == held.manifest


def test_one_file_is_read_and_checked_without_the_others(store: Path, folder: Path) -> None:
    (folder / "deep" / "weights").write_bytes(b"evil weights")
    with Committed(store, PATH) as held:
        assert held.read("config.json") == b'{"good": true}'
        assert held.manifest.files["config.json"].sha256 == hashlib.sha256(b'{"good": true}').hexdigest()
        with pytest.raises(JobError, match="deep/weights is not what its manifest says"):
            held.read("deep/weights")
        with pytest.raises(JobError, match="none is missing"):
            held.read("none")


def test_what_fails_leaves_nothing_open(store: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "deep" / "weights").write_bytes(b"evil weights")
    before, scratch = open_descriptors(), Path(committed.tempfile.gettempdir())
    shown = set(scratch.glob("moe-committed-*"))
    for _ in range(3):
        with pytest.raises(JobError), opened(store, PATH):
            pass
    (folder / "added").write_text("")
    for _ in range(3):
        with pytest.raises(JobError):
            Committed(store, PATH)
    assert open_descriptors() == before
    assert set(scratch.glob("moe-committed-*")) <= shown


@pytest.mark.parametrize("kind", ["link to a folder", "link to nothing", "file", "pipe"])
def test_what_was_put_in_the_place_of_a_new_folder_is_replaced_and_its_target_left(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").write_text("mine")
    final = tmp_path / "final"
    match kind:
        case "link to a folder":
            final.symlink_to(tmp_path / "other")
        case "link to nothing":
            final.symlink_to("nowhere")
        case "file":
            final.write_text("in the way")
        case "pipe":
            os.mkfifo(final)
    with new_folder(final.parent, final.name, "artefact") as working:
        (working / "file").write_text("text")
    verify(final.parent, final.name)
    assert not final.is_symlink() and (tmp_path / "other" / "mine").read_text() == "mine"


@pytest.mark.parametrize("kind", ["link", "folder by a link", "pipe"])
def test_nothing_is_committed_that_is_no_regular_file(tmp_path: Path, kind: str) -> None:
    with pytest.raises(JobError, match="odd is a "), new_folder(tmp_path, "final", "artefact") as working:
        (working / "file").write_text("text")
        if kind == "pipe":
            os.mkfifo(working / "odd")
        else:
            (working / "odd").symlink_to("/etc/passwd" if kind == "link" else "/etc")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_or_a_file_that_is_too_large_is_not_held(
    store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, Committed(store, PATH) as held:
        patched.setattr(limits, "STORED_BYTES", 11)
        with pytest.raises(JobError, match=r"ArtefactCorrupt.*deep/weights has 12 bytes; the limit is 11"):
            held.read("deep/weights")
    monkeypatch.setattr(limits, "MANIFEST_BYTES", 50)
    for look in (lambda: Committed(store, PATH), lambda: read_manifest(store, PATH)):
        with pytest.raises(JobError, match=r"ArtefactCorrupt.*its manifest.json has more than 50 bytes"):
            look()
