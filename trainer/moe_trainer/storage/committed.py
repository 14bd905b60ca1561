"""Committed folders that are held open while they are used, so that what was verified is what is read.

    with opened(store, path, digest) as folder:     every byte is verified; readers and libraries get this folder
        model = load(folder)

    with Committed(store, path, digest) as held:    nothing is verified yet
        config = held.read("config.json")           one file, which is verified

Whoever can write to the store's claim can swap its files at any moment, and add some. So a folder and its files are opened
once, beneath the store and through no link (moe_formats/beneath.py). Whatever else lies in the folder is an error. What
readers get is a private folder with exactly the files that the manifest lists: small ones as copies of the bytes that were
verified, and large ones as links to their open descriptors, so that weights are in memory no more often than before.
"""

import hashlib
import io
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from moe_formats.beneath import RefusedError, Root, kind_of, printable
from moe_formats.format import Digest
from moe_trainer import limits
from moe_trainer.storage.manifest import MANIFEST, FileEntry, Manifest, corrupt, manifest_of

#: Files up to this size, in bytes, are copied; larger ones are read by their descriptors.
COPIED_BYTES = 4 << 20

#: What a server of NFS keeps of a file that was removed while it was open. It is never read.
_LEFT_BY_NFS = re.compile(r"\.nfs[0-9a-f]+")

#: Size, times of the last changes, and number of a file: if they are the same, so are its bytes.
Stamp = tuple[int, int, int, int]


@contextmanager
def opened(root: Path, path: str, digest: Digest | None = None) -> Iterator[Path]:
    """Verify a committed folder and yield a private one with exactly the files that its manifest lists.

    Raises JobError (ArtefactCorrupt) if a byte differs from what the manifest says, the manifest is not the one that
    ``digest`` names, or the folder holds anything else; when the block ends, also if a file changed meanwhile.
    """
    with Committed(root, path, digest) as held:
        yield held.verified()


def verify(root: Path, path: str, digest: Digest | None = None) -> Manifest:
    """Return the manifest of a committed folder after checking every byte of its files; raises what ``opened`` raises."""
    with Committed(root, path, digest) as held:
        held.verify()
        return held.manifest


class Committed:
    """A committed folder that is held open. Close it, or use it in a ``with`` statement."""

    def __init__(self, root: Path, path: str, digest: Digest | None = None) -> None:
        """Open a folder of a store and read its manifest.

        Raises JobError (ArtefactCorrupt) if there is none, it is not the one that ``digest`` names, or the folder holds
        anything that it does not list.
        """
        self._name = root / path
        self._held: dict[str, tuple[int, Stamp]] = {}
        self._shown: list[Path] = []
        self._folder = _open_folder(root, path)
        self._closing = weakref.finalize(self, _close, os.getpid(), self._folder, self._held, self._shown)
        self.manifest, self.digest = manifest_of(self._folder, self._name)
        if digest is not None and self.digest != digest:
            raise corrupt(
                self._name, f"the digest of its manifest is {self.digest}, not {digest} as expected"
            )
        self._check_nothing_was_added()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.check_unchanged()
        finally:
            self.close()

    def close(self) -> None:
        """Close all files, and remove the private folder."""
        self._closing()

    def read(self, name: str) -> bytes:
        """Return the bytes of a file after checking them; raises JobError (ArtefactCorrupt), also if they are too many."""
        entry = self._entry(name)
        if entry.size > limits.STORED_BYTES:
            raise corrupt(
                self._name,
                f"{printable(name)} has {entry.size:,} bytes; the limit is {limits.STORED_BYTES:,}",
            )
        with io.FileIO(self._open(name)) as file:
            data = file.read(entry.size + 1)
        if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise self._differs(name, entry)
        return data

    def verify(self, share: slice = slice(None)) -> None:
        """Check every byte of the files; raises JobError (ArtefactCorrupt).

        ``share`` selects the large files, in the order of their names, that this process checks where several share the
        work; small ones are always checked.
        """
        large = self._large()
        for name in sorted(self.manifest.files.keys() - large):
            self.read(name)
        for name in large[share]:
            entry = self._entry(name)
            descriptor = self._hold(name)
            if os.fstat(descriptor).st_size != entry.size or _sha256(descriptor) != entry.sha256:
                raise self._differs(name, entry)

    def verified(self) -> Path:
        """Check every byte, and return the private folder."""
        self.verify()
        return self.show()

    def show(self) -> Path:
        """Return a private folder with the listed files; the large ones have not been verified by this."""
        if not self._shown:
            top = Path(tempfile.mkdtemp(prefix="moe-committed-"))
            self._shown.append(top)
            folder = top / self._name.parent.name / self._name.name  # names for messages
            folder.mkdir(parents=True)
            for name in self.manifest.files:
                place = folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                if self._is_large(name):
                    place.symlink_to(f"/proc/self/fd/{self._hold(name)}")
                else:
                    place.write_bytes(self.read(name))
            self._shown.append(folder)
        return self._shown[1]

    def stamps(self) -> dict[str, Stamp]:
        """Return the stamp that each large file had when it was opened: another one means that it is another file."""
        for name in self._large():
            self._hold(name)
        return {name: self._held[name][1] for name in self._large()}

    def check_unchanged(self) -> None:
        """Raise JobError (ArtefactCorrupt) if a large file's bytes have changed since it was opened.

        Only a file with another stamp is read again: its owner or its number of links may have changed instead.
        """
        for name, (descriptor, stamp) in self._held.items():
            if _stamp(descriptor) != stamp and _sha256(descriptor) != self._entry(name).sha256:
                raise corrupt(self._name, f"{printable(name)} was written to while it was read")

    def _is_large(self, name: str) -> bool:
        return self.manifest.files[name].size > COPIED_BYTES

    def _large(self) -> list[str]:
        return sorted(filter(self._is_large, self.manifest.files))

    def _entry(self, name: str) -> FileEntry:
        try:
            return self.manifest.files[name]
        except KeyError:
            raise corrupt(self._name, f"{printable(name)} is missing") from None

    def _hold(self, name: str) -> int:
        """Return the descriptor of a large file, which is opened once."""
        if name not in self._held:
            descriptor = self._open(name)
            self._held[name] = descriptor, _stamp(descriptor)
        return self._held[name][0]

    def _open(self, name: str) -> int:
        """Open a listed file; raises JobError (ArtefactCorrupt)."""
        try:
            return self._folder.descriptor(name, links=False)
        except RefusedError as error:
            raise corrupt(self._name, f"{printable(name)} {error.what}") from None
        except (FileNotFoundError, NotADirectoryError):
            raise corrupt(self._name, f"{printable(name)} is missing") from None

    def _check_nothing_was_added(self) -> None:
        """Raise JobError (ArtefactCorrupt) that names what the manifest does not list, or what is no regular file."""
        folders = {parent.as_posix() for name in self.manifest.files for parent in Path(name).parents}
        try:
            self._check_folder(self._folder, "", folders)
        except (FileNotFoundError, NotADirectoryError, RefusedError):
            raise corrupt(self._name, "its folders changed while they were listed") from None

    def _check_folder(self, folder: Root, path: str, folders: set[str]) -> None:
        within = []
        with folder.entries() as entries:
            for entry in entries:
                at = path + entry.name
                if entry.is_dir(follow_symlinks=False) and at in folders:
                    within.append(at)
                elif at in self.manifest.files or at == MANIFEST:
                    if not entry.is_file(follow_symlinks=False):
                        what = kind_of(entry.stat(follow_symlinks=False).st_mode)
                        raise corrupt(self._name, f"{printable(at)} is {what}, not a regular file")
                elif not (entry.is_file(follow_symlinks=False) and _LEFT_BY_NFS.fullmatch(entry.name)):
                    raise corrupt(
                        self._name,
                        f"it holds {printable(at)}, which its manifest does not list: somebody added it; remove it",
                    )
        for at in within:
            with self._folder.folder(at) as found:
                self._check_folder(found, f"{at}/", folders)

    def _differs(self, name: str, entry: FileEntry) -> Exception:
        return corrupt(
            self._name,
            f"{printable(name)} is not what its manifest says ({entry.size} bytes, {entry.sha256})",
        )


def _open_folder(root: Path, path: str) -> Root:
    try:
        with Root(root) as store:
            return store.folder(path)
    except RefusedError as error:
        raise corrupt(root / path, f"its path {error.what}") from None
    except (FileNotFoundError, NotADirectoryError):
        raise corrupt(root / path, f"it has no {MANIFEST}, so it was never committed") from None


def _close(process: int, folder: Root, held: dict[str, tuple[int, Stamp]], shown: list[Path]) -> None:
    folder.close()
    while held:
        os.close(held.popitem()[1][0])
    if shown and os.getpid() == process:  # a process that was forked from it leaves the folder alone
        shutil.rmtree(shown[0], ignore_errors=True)


def _stamp(descriptor: int) -> Stamp:
    state = os.fstat(descriptor)
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def _sha256(descriptor: int) -> str:
    with io.FileIO(descriptor, closefd=False) as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()
