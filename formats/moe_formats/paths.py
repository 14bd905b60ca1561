"""The one rule for paths in a store or a source: they are relative, and never lead out of it."""

from typing import Annotated

from pydantic import AfterValidator, Field


def leaves_its_root(path: str) -> bool:
    """Return whether a path is absolute or contains ``..``."""
    return path.startswith("/") or ".." in path.split("/")


def beneath(path: str) -> str:
    """Return a path unchanged; raises ValueError if it is empty or leaves its root. Pydantic adds the field's name."""
    if not path:
        raise ValueError("path is empty: name files in the store")
    if leaves_its_root(path):
        raise ValueError(f"path {path!r} must be relative and must not contain '..': name files in the store")
    return path


#: A path relative to a root that the reader knows: the pool's store, or a source.
RelativePath = Annotated[str, Field(max_length=512), AfterValidator(beneath)]
