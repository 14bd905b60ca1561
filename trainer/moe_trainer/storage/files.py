"""Single files and folders of a store, read and written although somebody else can write to it at the same time.

Whoever can write to a store's claim can put a folder, a link or a pipe in the place of anything, at any moment. So

    folders     are entered and made part by part beneath the store's root (moe_formats/beneath.py)
    reading     opens regular files only, and never waits
    new files   are created and never merely opened: O_EXCL refuses whatever lies there, also a link or a pipe
    names       of what is not finished are random, so that nobody can occupy them in advance
    finishing   moves a file or a folder to its name within the folder that is held open

A store's root is its mount, which is trusted. All paths are relative to it, as in moe_formats/store.py.
"""

import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from moe_formats.beneath import RefusedError, Root, kind_of, printable

#: Most folders within each other that are removed.
MAX_DEPTH = 64

_CREATED = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPENDED = (
    os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
)
_SYNCED = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


# -- whole files -----------------------------------------------------------------------------------------------------


def open_file(root: Path, path: str) -> BinaryIO:
    """Open a regular file for reading; raises RefusedError (PathNotAllowed) for anything else, and OSError."""
    with _folder_of(root, path) as (folder, name):
        return folder.open(name)


def exists(root: Path, path: str) -> bool:
    """Return whether anything lies at a path of a store, whatever it is; raises what ``open_file`` raises of its folders."""
    try:
        with _folder_of(root, path) as (folder, name):
            os.stat(name, dir_fd=folder.fileno(), follow_symlinks=False)
            return True
    except FileNotFoundError:
        return False


def read_file(root: Path, path: str, most: int) -> bytes:
    """Return the bytes of a file; raises what ``open_file`` raises, and RefusedError for more than ``most``."""
    with open_file(root, path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise RefusedError.at(
            printable(path), f"has more than {most:,} bytes", "restore it from a backup, or remove it"
        )
    return data


def write_file(path: Path, data: bytes | str) -> None:
    """Write a new file of a folder that is not committed yet through to the disk; raises FileExistsError for an old one."""
    with path.open("xb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(root: Path, path: str, data: bytes) -> None:
    """Put a file in the place of another at once: readers see the old bytes or the new, never a mix."""
    with replacing(root, path) as file:
        file.write(data)


@contextmanager
def replacing(root: Path, path: str) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of what lies at ``path`` at once when the block ends well.

    Raises RefusedError (PathNotAllowed) if that is a folder.
    """
    with _folder_of(root, path, make=True) as (folder, name):
        working = unfinished(name)
        try:
            with create(folder, working) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            try:
                move(folder, working, name)
            except IsADirectoryError:
                raise _in_the_way(f"{folder.name}/{name}", stat.S_IFDIR) from None
        finally:
            discard(folder, working)


def append_to(root: Path, path: str) -> BinaryIO:
    """Open a regular file for appending; it is created if there is nothing yet.

    Raises RefusedError (PathNotAllowed) for a link, or for anything else that is no regular file.
    """
    with _folder_of(root, path, make=True) as (folder, name):
        try:
            descriptor = os.open(name, _APPENDED, 0o666, dir_fd=folder.fileno())
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise _in_the_way(f"{folder.name}/{name}", _mode(folder, name)) from None
            raise
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(descriptor)
            raise _in_the_way(f"{folder.name}/{name}", mode)
        return os.fdopen(descriptor, "ab")


# -- within a folder that is held open ---------------------------------------------------------------------------------


def open_store(root: Path) -> Root:
    """Open the root of a store for writing; it is made if it is missing."""
    root.mkdir(parents=True, exist_ok=True)
    return Root(root)


def make_folder(root: Root, path: str) -> Root:
    """Return a folder beneath a root; it and those above it are made where they are missing.

    Raises RefusedError (PathNotAllowed) that names what lies in the way.
    """
    try:
        return root.folder(path)
    except FileNotFoundError:
        above, _, name = path.rpartition("/")
        with make_folder(root, above) as parent, suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent.fileno())
    except NotADirectoryError as error:
        raise _no_folder(error) from None
    try:
        return root.folder(path)
    except (
        FileNotFoundError,
        NotADirectoryError,
    ) as error:  # a link to nothing, or what was put there meanwhile
        raise _no_folder(error) from None


def create(folder: Root, name: str) -> BinaryIO:
    """Create a file and open it for writing; raises FileExistsError for whatever lies there already."""
    return os.fdopen(os.open(name, _CREATED, 0o666, dir_fd=folder.fileno()), "wb")


def move(folder: Root, name: str, to: str) -> None:
    """Give something in a folder another name, and write both through to the disk."""
    os.rename(name, to, src_dir_fd=folder.fileno(), dst_dir_fd=folder.fileno())
    sync(folder)


def sync(folder: Root) -> None:
    """Write a folder's entries through to the disk, so that a new name survives a power cut."""
    descriptor = os.open(".", _SYNCED, dir_fd=folder.fileno())
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unfinished(name: str) -> str:
    """Return a name for what is to be ``name`` when it is finished, which nobody can guess."""
    return f".{name}.new-{secrets.token_hex(8)}"


def discard_unfinished(folder: Root, name: str = "") -> None:
    """Remove what attempts that were killed left under names that ``unfinished`` made of ``name``, or of any name."""
    prefix = f".{name}.new-" if name else "."
    with folder.entries() as entries:
        left_over = [
            entry.name for entry in entries if entry.name.startswith(prefix) and ".new-" in entry.name
        ]
    for found in left_over:
        discard(folder, found)


def remove(folder: Root, name: str, depth: int = 0) -> None:
    """Remove a file or a folder with all that is in it, if there is one; what links lead to is left alone.

    Raises OSError for what cannot be removed.
    """
    if depth > MAX_DEPTH:
        raise OSError(errno.ELOOP, f"more than {MAX_DEPTH} folders within each other", name)
    try:
        os.unlink(name, dir_fd=folder.fileno())
    except FileNotFoundError:
        return
    except IsADirectoryError:
        with suppress(RefusedError), folder.folder(name, links=False) as within:
            with within.entries() as entries:
                names = [entry.name for entry in entries]
            for inner in names:
                with suppress(OSError):
                    remove(within, inner, depth + 1)
        os.rmdir(name, dir_fd=folder.fileno())  # fails if anything could not be removed


def discard(folder: Root, name: str) -> None:
    """Remove something as far as that is possible."""
    with suppress(OSError):
        remove(folder, name)


def drop(root: Path, path: str) -> None:
    """Remove a file or a folder of a store as far as that is possible."""
    with suppress(OSError, RefusedError), _folder_of(root, path) as (folder, name):
        remove(folder, name)


@contextmanager
def shown(folder: Root, name: str) -> Iterator[Path]:
    """Yield a path of a folder that is held open, which ends in ``name``, for libraries that take no descriptors.

    It leads to the same folder whatever is renamed meanwhile, in this process only.
    """
    with tempfile.TemporaryDirectory(prefix="moe-folder-") as private:
        place = Path(private, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(f"/proc/self/fd/{folder.fileno()}")
        yield place


@contextmanager
def _folder_of(root: Path, path: str, *, make: bool = False) -> Iterator[tuple[Root, str]]:
    """Yield the folder in which a path ends, held open, and the last part of the path."""
    above, _, name = path.rpartition("/")
    with open_store(root) if make else Root(root) as store:
        try:
            folder = make_folder(store, above) if make else store.folder(above)
        except NotADirectoryError as error:
            raise _no_folder(error) from None
        with folder:
            yield folder, name


def _mode(folder: Root, name: str) -> int:
    try:
        return os.stat(name, dir_fd=folder.fileno(), follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _in_the_way(path: str, mode: int) -> RefusedError:
    return RefusedError.at(
        printable(path), f"is {kind_of(mode)}", "only regular files are written here; remove it"
    )


def _no_folder(error: OSError) -> RefusedError:
    return RefusedError.at(
        str(error.filename), "is no folder", "a folder is needed there; remove what lies in its place"
    )
