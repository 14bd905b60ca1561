"""Where a source's files are, and how they are listed and opened.

Whether a source's root is a mounted claim or an object store, its files are listed in order, opened one at a time as
raw seekable streams, and watched: if one changes while it is read, the attempt fails and the next one reads it again.

Globs have the same meaning everywhere (that of ``pathlib.Path.glob``): ``*`` and ``?`` stand for anything but ``/``,
``[...]`` for one of some characters, and ``**`` as a whole part for any number of folders, also none.
"""

import io
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from moe_formats.beneath import Root, printable
from moe_formats.failure import JobError, TransientError
from moe_trainer import limits
from moe_trainer.environment import Environment
from moe_trainer.sources.listing import NOTHING_THERE, LeftOut, is_wild, list_files, parts_of


@dataclass(frozen=True)
class File:
    """A file that a source's glob matches."""

    root: str  #: The name of the store or claim.
    path: str  #: The path beneath the root.
    size: int  #: Its size in bytes when it was listed.
    version: str = ""  #: The entity tag of an object; empty for a file.

    def __str__(self) -> str:
        return f"{self.root}/{printable(self.path)}"


class Files(Protocol):
    """The files of one root."""

    #: What the last glob matched and cannot be read; the paths are for messages.
    left_out: list[LeftOut]

    def matching(self, pattern: str) -> list[File]:
        """Return the files that a glob matches, sorted; raises JobError (PathNotAllowed, DataMissing)."""
        ...

    def open(self, file: File) -> AbstractContextManager[io.RawIOBase]:
        """Open a file; raises TransientError (DataChanged), when it is closed at the latest, if the file changed."""
        ...


class LocalFiles:
    """Files beneath a folder: a mounted claim.

    Nothing outside of the folder is ever opened, and nothing but regular files, whatever is put in their place between
    listing and opening (moe_formats/beneath.py): a path that leads out by ``..``, because it is absolute or through a
    link, is refused.
    """

    def __init__(self, root: str, folder: Path) -> None:
        self._root = root
        self._folder = folder
        self.left_out: list[LeftOut] = []

    def matching(self, pattern: str) -> list[File]:
        """Return the files that a glob matches, sorted; raises JobError (PathNotAllowed, DataMissing)."""
        try:
            root = Root(self._folder, self._root)
        except OSError as error:
            if error.errno not in NOTHING_THERE:
                raise
            raise JobError(
                "DataMissing", f"source root {self._root!r} is not mounted: no such store or claim here."
            ) from None
        found: list[File] = []
        left_out: list[LeftOut] = []
        with root:
            try:
                for path, size in list_files(root, pattern, left_out):
                    found.append(File(self._root, path, size))
                    if len(found) > limits.FILES_MATCHED:
                        raise self._too_many(pattern)
            except ValueError as error:
                raise JobError("PathNotAllowed", f"source path {pattern!r} is not a glob: {error}.") from None
        self.left_out = sorted(LeftOut(f"{self._root}/{printable(path)}", what) for path, what in left_out)
        return sorted(found, key=lambda file: file.path.split("/"))

    def _too_many(self, pattern: str) -> JobError:
        return JobError(
            "PathNotAllowed",
            f"{self._root}/{pattern} matches more than {limits.FILES_MATCHED} files. Write a longer folder before the first "
            "wildcard, or pack the files.",
        )

    @contextmanager
    def open(self, file: File) -> Iterator[io.RawIOBase]:
        """Open a file; raises TransientError (DataChanged) if it has changed by the time it is closed.

        Raises JobError (PathNotAllowed) if it is no regular file beneath the folder any more.
        """
        descriptor = self._descriptor(file)
        try:
            before = _version(descriptor)
            try:
                # Readers close the stream; only after that is the file checked for changes.
                with io.FileIO(descriptor, closefd=False) as raw:
                    yield raw
            finally:
                if _version(descriptor) != before:
                    raise changed(file, "it was written to")
        finally:
            os.close(descriptor)

    def _descriptor(self, file: File) -> int:
        try:
            with Root(self._folder, self._root) as root:
                return root.descriptor(file.path)
        except (FileNotFoundError, NotADirectoryError):
            raise changed(file, "it was listed, but no longer exists") from None
        except PermissionError:
            raise JobError(
                "DataUnreadable",
                f"{file} cannot be read by user {os.getuid()}: make it readable for its group or for everyone.",
            ) from None


def changed(file: File, how: str) -> TransientError:
    """Return the error for a file that changed while it was read."""
    return TransientError(
        "DataChanged",
        f"{file} changed while it was read: {how}. The next attempt reads it again; to be safe, write "
        "new files under another name and rename them when they are complete.",
    )


def _version(descriptor: int) -> tuple[int, int]:
    state = os.fstat(descriptor)
    return state.st_size, state.st_mtime_ns


def matches(path: str, pattern: str) -> bool:
    """Return whether a glob matches the path of an object."""
    parts = path.split("/")
    reached = {0}  # how many parts of the path the glob can have matched so far
    for wanted in parts_of(pattern):
        if wanted == "**":
            reached = set(range(min(reached, default=len(parts)), len(parts)))
        else:
            reached = {at + 1 for at in reached if at < len(parts) and fnmatchcase(parts[at], wanted)}
    return len(parts) in reached


def literal_folder(pattern: str) -> str:
    """Return the folder that contains everything a glob can match: its parts before the first wildcard."""
    folders = parts_of(pattern)[:-1]
    literal = next((at for at, part in enumerate(folders) if is_wild(part)), len(folders))
    return "/".join(folders[:literal])


def files_of(root: str, environment: Environment) -> Files:
    """Return the files of a source's root; raises JobError (PathNotAllowed, InvalidEnvironment, StoreDenied)."""
    if "/" in root or root in ("", ".", ".."):
        raise JobError("PathNotAllowed", f"source root {root!r} must be the name of a store or claim.")
    location = environment.object_stores.get(root)
    if location is not None:
        from moe_trainer.sources.object_store import ObjectStoreFiles  # its client takes time to load

        folder = environment.credentials
        return ObjectStoreFiles(root, location, folder / root if folder is not None else None)
    if environment.sources is None:
        raise JobError(
            "InvalidEnvironment", "MOE_SOURCES is not set: it must name the folder of mounted data."
        )
    return LocalFiles(root, environment.sources / root)
