"""The one rule for paths beneath a store or a source: they are relative and never leave it."""

from typing import Annotated

from pydantic import AfterValidator, Field


def leaves_its_root(path: str) -> bool:
    """Say whether a path is absolute or has a part ``..``."""
    return path.startswith("/") or ".." in path.split("/")


def beneath(path: str) -> str:
    """Return the path; raises ValueError, which pydantic reports with the field's name, unless it is beneath its root."""
    if not path:
        raise ValueError("path is empty: name files beneath the store")
    if leaves_its_root(path):
        raise ValueError(
            f"path {path!r} must be relative and must not contain '..': name files beneath the store"
        )
    return path


#: A path beneath a root that the reader knows (the pool's store, a source).
RelativePath = Annotated[str, Field(max_length=512), AfterValidator(beneath)]
