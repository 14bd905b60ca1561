"""The manifest of a committed folder, with the SHA-256 of every file. It is written last (committing.py).

For readers, a folder without a manifest does not exist. A committed folder is immutable: it is never written again,
and if the same name is committed twice, the first one stays. Readers ask for a folder *by the digest of its
manifest*, and get an error rather than altered data. Artefacts, snapshots, holdouts and checkpoints are such
folders.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from moe_formats.beneath import RefusedError, Root
from moe_formats.failure import JobError
from moe_formats.format import Digest, Format, digest_of
from moe_formats.store import IMPORTS
from moe_trainer import limits, untrusted

Parsed = TypeVar("Parsed", bound=BaseModel)

MANIFEST = "manifest.json"

Kind = Literal[
    "artefact", "snapshot", "holdout", "checkpoint", "table", "evaluation", "tasks", "tokens", "matrix"
]


class FileEntry(Format):
    """One file of a committed folder."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0, description="Bytes.")


class Manifest(Format):
    """What a committed folder holds."""

    kind: Kind
    files: dict[str, FileEntry] = Field(description="Relative path to checksum; manifest.json is not in it.")


def read_manifest(root: Path, path: str) -> tuple[Manifest, Digest]:
    """Return the manifest of a folder in a store and its digest, without reading the files it lists."""
    try:
        with Root(root) as store, store.folder(path) as folder:
            return manifest_of(folder, Path(root, path))
    except RefusedError as error:
        raise corrupt(Path(root, path), f"its path {error.what}") from None
    except (FileNotFoundError, NotADirectoryError):
        raise corrupt(Path(root, path), f"it has no {MANIFEST}, so it was never committed") from None


def manifest_of(folder: Root, place: Path) -> tuple[Manifest, Digest]:
    """Return the manifest of an open folder and its digest; ``place`` stands for it in messages."""
    try:
        text = folder.read(MANIFEST, limits.MANIFEST_BYTES + 1, links=False)
    except RefusedError as error:
        raise corrupt(place, f"its {MANIFEST} {error.what}") from None
    except FileNotFoundError:
        raise corrupt(place, f"it has no {MANIFEST}, so it was never committed") from None
    if len(text) > limits.MANIFEST_BYTES:
        raise corrupt(
            place, f"its {MANIFEST} has more than {limits.MANIFEST_BYTES:,} bytes, which is the limit"
        )
    return parse_manifest(place, text), digest_of(text)


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


def lines_of(folder: Path, name: str, most: int) -> Iterator[bytes]:
    """Yield the lines of a file in an open committed folder (committed.py); none of them is blank.

    Raises JobError (ArtefactCorrupt) for a line of more than ``most`` bytes, which is never held.
    """
    with (folder / name).open("rb") as file:
        for number, line in enumerate(untrusted.lines(file, most), start=1):
            if line is None:
                raise corrupt(
                    folder, f"line {number} of {name} has more than {most:,} bytes, which is the limit"
                )
            if line.strip():
                yield line


def corrupt(folder: Path, what: str) -> JobError:
    """Return the error for a folder that must not be loaded."""
    remedy = "Restore the folder from a backup, or make the revision again with a new runID."
    if folder.parent.name == IMPORTS:  # copied from outside, so no Job can make it again
        remedy = "Restore the folder from a backup, or remove it, and the next snapshot copies the checkpoint again."
    return JobError(
        "ArtefactCorrupt",
        f"{folder.name} in {folder.parent.name} cannot be used: {what}. Nothing was loaded. {remedy}",
    )


def unfit(folder: Path, what: str) -> JobError:
    """Return the error for a folder with exactly the bytes of its manifest, which do not make up a model.

    If the folder was copied from outside, that checkpoint is at fault.
    """
    if folder.parent.name != IMPORTS:
        return corrupt(folder, what)
    return JobError(
        "BaseUnfit",
        f"the checkpoint at base.path cannot be used: {what}. It was copied as it is there, so a backup has the same "
        "fault: take another checkpoint, or correct this one and write its new digest into base.digest.",
    )


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_beneath(name: str) -> bool:
    return not {"", ".", ".."} & set(name.split("/")) and "\0" not in name
