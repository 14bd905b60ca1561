"""Folders that are committed as a whole, by a manifest with the SHA-256 of every file that is written last.

For readers, a folder without a manifest does not exist. A committed folder is immutable: it is never written again,
and if the same name is committed twice, the first one stays. Readers ask for a folder *by the digest of its
manifest*, and get an error rather than altered data. Artefacts, snapshots, holdouts and checkpoints are such
folders.
"""

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from moe_formats.beneath import RefusedError, Root, read_file
from moe_formats.failure import JobError
from moe_formats.format import Digest, Format, digest_of
from moe_formats.store import IMPORTS
from moe_trainer import limits, untrusted

Parsed = TypeVar("Parsed", bound=BaseModel)

MANIFEST = "manifest.json"

Kind = Literal["artefact", "snapshot", "holdout", "checkpoint", "table", "evaluation", "tasks", "tokens"]


class FileEntry(Format):
    """One file of a committed folder."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0, description="Bytes.")


class Manifest(Format):
    """What a committed folder holds."""

    kind: Kind
    files: dict[str, FileEntry] = Field(description="Relative path to checksum; manifest.json is not in it.")


@contextmanager
def new_folder(final: Path, kind: Kind, alive: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Yield an empty folder that is committed as ``final`` when the block ends without an error.

    If ``final`` was committed meanwhile, it stays and the new folder is dropped. After an exception only what was
    there before is left. What killed attempts left under the same name is removed. ``alive`` is called after each
    file has been hashed and written through to the disk, which can take long.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    for left_over in final.parent.glob(f".{final.name}.new-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    working = final.parent / f".{final.name}.new-{secrets.token_hex(4)}"
    working.mkdir()
    try:
        yield working
        _write_manifest(working, kind, alive)
        if os.path.lexists(final) and not is_committed(final):
            remove(final)  # not committed, so it does not exist for anybody
        if not os.path.lexists(final):
            working.rename(final)
            sync_folder(final.parent)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def read_manifest(folder: Path) -> tuple[Manifest, Digest]:
    """Return a folder's manifest and its digest, without reading the files it lists."""
    try:
        text = read_file(folder / MANIFEST)
    except RefusedError as error:
        raise corrupt(folder, f"its {MANIFEST} {error.what}") from None
    except (FileNotFoundError, NotADirectoryError):
        raise corrupt(folder, f"it has no {MANIFEST}, so it was never committed") from None
    return parse_manifest(folder, text), digest_of(text)


def parse_manifest(folder: Path, text: bytes) -> Manifest:
    """Return the manifest in a file's bytes; raises JobError (ArtefactCorrupt), also if it names files outside."""
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise corrupt(folder, f"its {MANIFEST} cannot be read: {error.errors()[0]['msg']}") from None
    if not all(map(_is_beneath, manifest.files)):
        raise corrupt(folder, f"its {MANIFEST} names files outside of it")
    return manifest


def read_format(folder: Path, name: str, kind: type[Parsed]) -> Parsed:
    """Return what a JSON file of a folder says; raises JobError (ArtefactCorrupt) that names the field."""
    try:
        return kind.model_validate_json(untrusted.read(folder / name, limits.CONFIG_BYTES))
    except untrusted.LimitExceeded as error:
        raise corrupt(folder, f"{name}: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise corrupt(folder, f"{name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def is_committed(folder: Path) -> bool:
    """Return whether the folder has a manifest, as a regular file."""
    try:
        return stat.S_ISREG((folder / MANIFEST).lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def corrupt(folder: Path, what: str) -> JobError:
    """Return the error for a folder that must not be loaded."""
    remedy = "Restore the folder from a backup, or make the revision again with a new runID."
    if folder.parent.name == IMPORTS:  # copied from outside, so no Job can make it again
        remedy = (
            "Restore the folder from a backup; if the checkpoint at base.path is at fault, correct it and write its new "
            "digest into base.digest."
        )
    return JobError(
        "ArtefactCorrupt",
        f"{folder.name} in {folder.parent.name} cannot be used: {what}. Nothing was loaded. {remedy}",
    )


def write_file(path: Path, data: bytes) -> None:
    """Write a file through to the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Put a file in the place of another at once: readers see the old bytes or the new, never a mix."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of ``path`` at once when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    working = path.with_name(f".{path.name}.new-{secrets.token_hex(4)}")
    try:
        with working.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        working.replace(path)
        sync_folder(path.parent)
    finally:
        working.unlink(missing_ok=True)


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Write a folder's entries through to the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_manifest(folder: Path, kind: Kind, alive: Callable[[], None]) -> None:
    files = {}
    with Root(folder) as root:
        for path in sorted(_files_in(folder)):
            with root.open(path, links=False) as file:
                os.fsync(file.fileno())
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                files[path] = FileEntry(sha256=sha256, size=os.fstat(file.fileno()).st_size)
            alive()
    write_file(folder / MANIFEST, Manifest(kind=kind, files=files).to_json().encode())
    sync_folder(folder)


def _files_in(folder: Path) -> Iterator[str]:
    """Yield the paths of everything in a folder but folders; links are not followed."""
    for where, folders, names in os.walk(folder):
        links = [name for name in folders if (Path(where) / name).is_symlink()]
        for name in (*names, *links):
            yield (Path(where) / name).relative_to(folder).as_posix()


def remove(path: Path) -> None:
    """Remove a folder, or whatever lies there instead; a link's target is left alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_beneath(name: str) -> bool:
    return not {"", ".", ".."} & set(name.split("/")) and "\0" not in name
