"""Results that are computed once and kept in the store, each in a file with a checksum.

Whoever finds one missing or altered computes it again, so none of them needs a backup.
"""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from moe_formats.beneath import RefusedError
from moe_formats.format import Format, digest_of
from moe_trainer import limits
from moe_trainer.storage.files import read_file, replace_file

Kept = TypeVar("Kept", bound=Format)


def read_cell(root: Path, path: str, kind: type[Kept]) -> Kept | None:
    """Return what was kept, or None if it was never written or is damaged."""
    try:
        checksum, _, text = read_file(root, path, limits.STORED_BYTES).decode().partition("\n")
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError, RefusedError):
        return None
    if digest_of(text) != checksum:
        return None
    try:
        return kind.model_validate_json(text)
    except ValidationError:
        return None


def write_cell(root: Path, path: str, kept: Format) -> None:
    """Keep a result. A kill at any moment leaves the file whole or absent."""
    text = kept.to_json()
    replace_file(root, path, f"{digest_of(text)}\n{text}".encode())
