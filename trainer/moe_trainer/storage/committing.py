"""Commits new folders: files go first, and a manifest with the SHA-256 of each comes last.

    with new_folder(store, path, "artefact") as working:    somewhere else; nobody finds it yet
        write_file(working / "config.json", …)
                                                            hashed, written through to the disk, moved to its path

The folder is held open from its first file to its last, so whatever somebody else puts into its place on the way gets no
file of ours, and does not become what is committed (storage/files.py).
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from moe_formats.beneath import RefusedError, Root
from moe_formats.failure import TransientError
from moe_formats.format import digest_of
from moe_trainer.storage.committed import Committed
from moe_trainer.storage.files import (
    create,
    discard,
    discard_unfinished,
    make_folder,
    move,
    open_store,
    remove,
    shown,
    sync,
    unfinished,
)
from moe_trainer.storage.manifest import MANIFEST, FileEntry, Kind, Manifest


@contextmanager
def new_folder(
    root: Path,
    path: str,
    kind: Kind,
    alive: Callable[[], None] = lambda: None,
    check: Callable[[Path], None] | None = None,
) -> Iterator[Path]:
    """Yield an empty folder that is committed at a path in a store when the block ends without an error.

    If that path was committed meanwhile, it stays and the new folder is dropped. After an exception only what was
    there before is left. What killed attempts left under the same name is removed. ``alive`` is called after each
    file has been hashed and written through to the disk, which can take long. ``check`` looks at the finished folder, as
    ``Committed.show`` shows it, before it gets its path.

    Files must be new (``write_file``, or mode ``x``). The path that is yielded works in this process only.
    """
    above, _, name = path.rpartition("/")
    with open_store(root) as store, make_folder(store, above) as parent:
        discard_unfinished(parent, name)
        working = unfinished(name)
        os.mkdir(working, dir_fd=parent.fileno())
        try:
            with parent.folder(working, links=False) as folder:
                with shown(folder, f"{Path(root, path).parent.name}/{working}") as place:
                    yield place
                digest = digest_of(_write_manifest(folder, kind, alive))
                if check is not None:
                    with Committed(root, f"{above}/{working}" if above else working, digest) as held:
                        check(held.show())
                if not _is_committed(parent, name):
                    remove(parent, name)  # not committed, so it does not exist for anybody
                    move(parent, working, name)
                    _check_same(folder, parent, name)
        finally:
            discard(parent, working)


@contextmanager
def unfinished_folder(root: Path, path: str, within: str) -> Iterator[Path]:
    """Yield a folder that is beneath one that another process has from ``new_folder``, to write files into it too.

    ``path`` is that of the folder to be, and ``within`` is the name of the unfinished one with the path in it.
    """
    above = path.rpartition("/")[0]
    with (
        Root(root) as store,
        store.folder(above) as parent,
        parent.folder(within, links=False) as folder,
        shown(folder, within) as place,
    ):
        yield place


def is_committed(root: Path, path: str) -> bool:
    """Return whether a folder has a manifest, as a regular file."""
    try:
        with Root(root) as store:
            return _is_committed(store, path)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_committed(parent: Root, path: str) -> bool:
    try:
        with parent.folder(path) as folder:
            mode = os.stat(MANIFEST, dir_fd=folder.fileno(), follow_symlinks=False).st_mode
            return stat.S_ISREG(mode)
    except (FileNotFoundError, NotADirectoryError, RefusedError):
        return False


def _write_manifest(folder: Root, kind: Kind, alive: Callable[[], None]) -> bytes:
    """Write the manifest of a folder, and return its bytes."""
    files = {}
    for path in sorted(_files_in(folder)):
        with folder.open(path, links=False) as file:
            os.fsync(file.fileno())
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            files[path] = FileEntry(sha256=sha256, size=os.fstat(file.fileno()).st_size)
        alive()
    text = Manifest(kind=kind, files=files).to_json().encode()
    with create(folder, MANIFEST) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync(folder)
    return text


def _files_in(folder: Root, path: str = "") -> Iterator[str]:
    """Yield the paths of everything in a folder but folders; links are not followed."""
    with folder.entries() as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if is_folder:
            with folder.folder(name, links=False) as within:
                yield from _files_in(within, f"{path}{name}/")
        else:
            yield path + name


def _check_same(folder: Root, parent: Root, name: str) -> None:
    """Raise TransientError unless the folder that is held open is the one that got the name."""
    found = os.stat(name, dir_fd=parent.fileno(), follow_symlinks=False)
    if not os.path.samestat(found, os.fstat(folder.fileno())):
        discard(parent, name)
        raise TransientError(
            "ArtefactCorrupt",
            f"{parent.name}/{name} was replaced by something else while it was committed. Find out who can write to the "
            "pool's claim; the next attempt makes it again.",
        )
