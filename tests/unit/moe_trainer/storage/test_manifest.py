from pathlib import Path

import pytest

from moe_formats import store
from moe_formats.failure import JobError
from moe_trainer.storage.committed import verify
from moe_trainer.storage.committing import is_committed, new_folder
from moe_trainer.storage.files import replace_file
from moe_trainer.storage.manifest import FileEntry, read_format, read_manifest


def commit(folder: Path, text: str) -> str:
    with new_folder(folder.parent, folder.name, "snapshot") as working:
        (working / "deep").mkdir()
        (working / "deep" / "file.txt").write_text(text)
    return read_manifest(folder.parent, folder.name)[1]


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    final = tmp_path / "final"
    with new_folder(final.parent, final.name, "snapshot") as working:
        (working / "file.txt").write_text("text")
        assert not final.exists()
    assert is_committed(final.parent, final.name)
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_bytes_that_are_no_text_are_a_damaged_folder(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_bytes(b'{"sha256": "\xff"}')
    with pytest.raises(JobError, match=r"ArtefactCorrupt: .* cannot be used: file\.json: "):
        read_format(tmp_path, "file.json", FileEntry)


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_folder(tmp_path, "final", "snapshot") as working:
        (working / "file.txt").write_text("text")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_committed_folder_stays_what_it_was(tmp_path: Path) -> None:
    digest = commit(tmp_path / "final", "first")
    assert commit(tmp_path / "final", "second") == digest
    assert (tmp_path / "final" / "deep" / "file.txt").read_text() == "first"


def test_a_folder_without_manifest_is_replaced_and_remains_of_kills_are_removed(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "half").write_text("half")
    (tmp_path / ".final.new-0a1b").mkdir()
    commit(tmp_path / "final", "whole")
    verify(tmp_path, "final")
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_equal_content_has_an_equal_digest_and_other_content_another(tmp_path: Path) -> None:
    one, same, other = (commit(tmp_path / n, t) for n, t in (("a", "x"), ("b", "x"), ("c", "y")))
    assert one == same != other


@pytest.mark.parametrize("damage", ["altered", "longer", "missing", "manifest", "no manifest"])
def test_every_damage_is_found(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "final"
    digest = commit(folder, "text")
    file, manifest = folder / "deep" / "file.txt", folder / "manifest.json"
    if damage == "altered":
        file.write_text("tex_")
    elif damage == "longer":
        file.write_text("text and more")
    elif damage == "missing":
        file.unlink()
    elif damage == "manifest":
        manifest.write_text(manifest.read_text().replace("snapshot", "artefact"))
    else:
        manifest.unlink()
    with pytest.raises(JobError, match="ArtefactCorrupt") as failed:
        verify(folder.parent, folder.name, digest)
    assert str(tmp_path.parent) not in failed.value.message


def test_a_file_is_replaced_at_once_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    replace_file(path.parent, path.name, b"old")

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="No space"):
        replace_file(path.parent, path.name, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("uid", ["../../etc", "a/b", "", ".", "é"])
def test_no_name_leads_out_of_the_store(uid: str) -> None:
    path = store.expert("pool", uid)
    assert path.startswith("pools/pool/experts/")
    assert path.count("/") == 3
    assert ".." not in path and not path.endswith("/")
