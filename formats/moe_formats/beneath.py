"""Opens files beneath a folder that somebody else can write to.

Whoever can write to a claim can put a link or a pipe in the place of a file or a folder at any moment, also between the
moment when it is looked at and the moment when it is opened. So nothing is looked at by its path first:

    parts      each part of a path is opened relative to the folder before it (openat), and never through a link
    links      a link is read and resolved here, part by part, as long as it stays beneath the root
    the file   is opened without waiting, because a pipe would wait forever, and must be a regular file
"""

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from moe_formats.failure import JobError, escaped

#: Most links on the way to a file, as in Linux.
MAX_LINKS = 40

#: Most characters of a name in a message: the rest of the message has to fit into a headline.
MAX_NAME = 240

#: Most bytes of one key of a ConfigMap or Secret. Kubernetes allows 1 MiB for all keys together.
MOUNTED_BYTES = 4 << 20

#: Number, time of the last change and size of a file: if they are the same, so are its bytes.
Version = tuple[int, int, int]

_ON_THE_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ANYTHING = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class RefusedError(JobError):
    """A path is refused for what lies there (PathNotAllowed)."""

    what = "cannot be read"  #: Continues a sentence that begins with the path.

    @classmethod
    def at(cls, path: str, what: str, fix: str) -> Self:
        """Return the error for a path, with the fix as an imperative."""
        error = cls("PathNotAllowed", f"{path} {what}: {fix}.")
        error.what = what
        return error


class LeadsOutError(RefusedError):
    """A path leads out of its root, by a link or by ``..``."""


class Root:
    """A folder that is held open, so that it stays the same one whatever is renamed meanwhile.

    Close it, or use it in a ``with`` statement. Its own path is trusted and may contain links: a mount, or a folder
    beneath another Root. All paths that its methods take are relative to it.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        """Open a folder; ``name`` stands for it in messages. Raises OSError if it is no folder that can be opened."""
        self.name = printable(folder.name if name is None else name)
        self._descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._place: Path | None = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder; what was opened beneath it stays open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """Return the descriptor of the folder, to which paths can be relative (``dir_fd``); it cannot be read or synced."""
        return self._descriptor

    def folder(self, path: str, *, links: bool = True) -> "Root":
        """Return a folder beneath this one, as a root of its own: links beneath it may not lead out of that.

        Raises RefusedError (PathNotAllowed) if the path leads out of the root, or leads through a link and ``links`` is
        false; FileNotFoundError, NotADirectoryError and other OSErrors as ``open`` does.
        """
        found = object.__new__(Root)
        found.name = f"{self.name}/{printable(path)}"
        found._descriptor = self._descend(path, _ON_THE_WAY, links=links)
        found._place = None
        return found

    def open(self, path: str, *, links: bool = True) -> io.BufferedReader:
        """Open a file for reading; raises what ``descriptor`` raises."""
        return os.fdopen(self.descriptor(path, links=links), "rb")

    def descriptor(self, path: str, *, links: bool = True) -> int:
        """Return a descriptor of a regular file, opened for reading.

        Raises RefusedError (PathNotAllowed) if it is anything else, if the path leads out of the root, or if it is a
        link and ``links`` is false; FileNotFoundError, PermissionError and other OSErrors as ``open`` does.
        """
        found = self._descend(path, _FILE, links=links)
        mode = os.fstat(found).st_mode
        if not stat.S_ISREG(mode):
            os.close(found)
            raise self._no_file(path, mode)
        return found

    def stat(self, path: str) -> os.stat_result:
        """Return the state of what a path leads to, which is not opened: a device may do something when it is."""
        found = self._descend(path, _ANYTHING, links=True)
        try:
            return os.fstat(found)
        finally:
            os.close(found)

    def resolved(self, path: str) -> str:
        """Return the path, without links, of what a path leads to; raises what ``stat`` raises."""
        found, where = self._descended(path, _ANYTHING, links=True)
        os.close(found)
        return where

    def read(self, path: str, limit: int | None = None, *, links: bool = True) -> bytes:
        """Return the bytes of a file, at most ``limit``; raises what ``descriptor`` raises."""
        with self.open(path, links=links) as file:
            return file.read(-1 if limit is None else limit)

    @contextmanager
    def entries(self) -> Iterator[Iterator[os.DirEntry[str]]]:
        """List what lies directly in the folder, in no particular order."""
        descriptor = os.open(
            ".", _LISTED, dir_fd=self._descriptor
        )  # a listing of its own, with its own position
        try:
            with os.scandir(descriptor) as found:
                yield found
        finally:
            os.close(descriptor)

    def leads_to_folder(self, name: str) -> bool:
        """Return whether a name in the folder is a folder or a link to one, even outside; nothing is opened."""
        try:
            return stat.S_ISDIR(os.stat(name, dir_fd=self._descriptor).st_mode)
        except OSError:
            return False

    def _descend(self, path: str, last: int, *, links: bool) -> int:
        """Return a descriptor of what a path leads to; ``last`` are the flags with which its last part is opened."""
        return self._descended(path, last, links=links)[0]

    def _descended(self, path: str, last: int, *, links: bool) -> tuple[int, str]:
        """Return a descriptor of what a path leads to, and its path without links."""
        trail: list[tuple[str, int]] = []  # the folders between the root and here
        pending, followed, link = _parts(path), 0, path
        try:
            while pending:
                part = pending.pop()
                if part == "..":
                    if not trail:
                        raise self._leads_out(link)
                    os.close(trail.pop()[1])
                    continue
                here = trail[-1][1] if trail else self._descriptor
                at = "/".join([*(name for name, _ in trail), part])
                found = self._open_part(part, here, last if not pending else _ON_THE_WAY, at)
                if isinstance(found, int):
                    trail.append((part, found))
                    continue
                followed, link = followed + 1, at
                if not links:
                    raise self._no_file(at, stat.S_IFLNK)
                if followed > MAX_LINKS:
                    raise RefusedError.at(
                        self._named(path),
                        f"leads through more than {MAX_LINKS} links",
                        "they may point at each other; put the file itself there",
                    )
                if found.startswith("/"):
                    found = self._from_here(found, at)
                    while trail:
                        os.close(trail.pop()[1])
                pending += _parts(found)
            where = "/".join(name for name, _ in trail)
            return (trail.pop()[1] if trail else os.dup(self._descriptor)), where
        finally:
            for _, descriptor in trail:
                os.close(descriptor)

    def _open_part(self, part: str, parent: int, flags: int, at: str) -> int | str:
        """Return a descriptor of one part, or where it points if it is a link."""
        try:
            found = os.open(part, flags, dir_fd=parent)
        except OSError as error:
            error.filename = self._named(at)
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                target = _target(part, parent)
                if target is not None:
                    return target
            if error.errno == errno.ENXIO:  # what cannot be opened at all, such as a socket
                mode = os.stat(part, dir_fd=parent, follow_symlinks=False).st_mode
                raise self._no_file(at, mode) from None
            raise
        if flags == _ANYTHING and stat.S_ISLNK(os.fstat(found).st_mode):
            os.close(found)
            return _target(part, parent) or part
        return found

    def _from_here(self, target: str, at: str) -> str:
        """Return where an absolute link points, relative to the root."""
        if self._place is not None:
            for place in (os.path.abspath(self._place), os.path.realpath(self._place)):
                if target == place or target.startswith(place.rstrip("/") + "/"):
                    return target.removeprefix(place)
        raise self._leads_out(at)

    def _leads_out(self, at: str) -> LeadsOutError:
        where = repr(self.name) if self.name else "its folder"
        return LeadsOutError.at(
            self._named(at), f"is a link that leads out of {where}", "copy the file there instead"
        )

    def _no_file(self, at: str, mode: int) -> RefusedError:
        return RefusedError.at(
            self._named(at),
            f"is {kind_of(mode)}",
            "only regular files are read here; put a regular file there, or remove it",
        )

    def _named(self, path: str) -> str:
        return f"{self.name}/{printable(path)}"


def read_mounted(path: Path) -> tuple[bytes, Version]:
    """Return the bytes of a key of a mounted ConfigMap or Secret, and their version.

    Kubernetes mounts each key as a link to a folder within the mount, and replaces all keys at once by another folder. So
    links are followed as long as they stay in the key's folder. Raises RefusedError (PathNotAllowed) for anything but a
    regular file there, and for one with more than MOUNTED_BYTES.
    """
    with Root(path.parent) as mount, mount.open(path.name) as file:
        data = file.read(MOUNTED_BYTES + 1)
        if len(data) > MOUNTED_BYTES:
            raise RefusedError.at(
                printable(path.name),
                f"has more than {MOUNTED_BYTES:,} bytes",
                "remove what is not needed in it",
            )
        return data, _version(os.fstat(file.fileno()))


def mounted_version(path: Path) -> Version:
    """Return the version of what ``read_mounted`` reads; raises the same for a path that leads out of its folder."""
    with Root(path.parent) as mount:
        return _version(mount.stat(path.name))


def printable(name: str) -> str:
    """Return a file's name for messages: short, and what is no printable text in it, such as a line break, escaped."""
    if not name.isprintable():
        name = "".join(map(escaped, name))
    if len(name) > MAX_NAME:
        name = f"{name[: MAX_NAME * 2 // 3]}…{name[-MAX_NAME // 3 :]}"
    return name


def kind_of(mode: int) -> str:
    """Return in words what a mode says that something is: "a link", "a directory"."""
    return _KINDS.get(stat.S_IFMT(mode), "of an unknown kind")


def _version(status: os.stat_result) -> Version:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _target(part: str, parent: int) -> str | None:
    """Return where a link points; None if it is not a link."""
    try:
        return os.readlink(part, dir_fd=parent)
    except OSError:
        return None


def _parts(path: str) -> list[str]:
    """Return the parts of a path, the last one first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]
