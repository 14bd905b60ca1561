"""Lists the files beneath a folder that a glob matches, without leaving the folder (moe_formats/beneath.py).

A glob means what it means to ``pathlib.Path.glob``: ``**`` walks into folders but through no link, so that a link back to
a folder above is not walked without end; every other part also matches a link, as long as it stays beneath the root. A
folder is listed once, however many ``**`` a glob has.
"""

import os
import re
import stat
from collections.abc import Iterator
from fnmatch import translate

from moe_formats.beneath import LeadsOutError, RefusedError, Root
from moe_trainer import limits

#: Most folders within each other: each one on the way is held open.
MAX_DEPTH = 128

_WILDCARDS = re.compile(r"[*?\[]")
_FOLDERS = "**"


def parts_of(pattern: str) -> list[str]:
    """Return the parts of a glob; raises ValueError if it is too long to be matched in reasonable time."""
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if len(pattern) > limits.GLOB_CHARACTERS or len(parts) > limits.GLOB_PARTS:
        raise ValueError(
            f"it has {len(pattern)} characters in {len(parts)} parts, but {limits.GLOB_CHARACTERS} characters in "
            f"{limits.GLOB_PARTS} parts are allowed"
        )
    return parts


def is_wild(part: str) -> bool:
    """Return whether a part of a glob can stand for more than one name."""
    return _WILDCARDS.search(part) is not None


def list_files(root: Root, pattern: str) -> Iterator[tuple[str, int]]:
    """Yield the path and the size of each file that a glob matches, in no particular order.

    What is neither a file nor a folder, such as a pipe, matches nothing. Raises ValueError for a glob without a meaning,
    and RefusedError (PathNotAllowed) for a link that leads out of the root.
    """
    parts = parts_of(pattern)
    if not parts or pattern.startswith("/"):
        raise ValueError("it must be relative and name files")
    if ".." in parts:
        raise ValueError("'..' leads out of the root")
    if any(_FOLDERS in part and part != _FOLDERS for part in parts):
        raise ValueError("'**' can only be an entire part of it")
    walk = _Walk(root, parts)
    return walk.files(root, "", walk.reached({0}), 0)


class _Walk:
    """A walk through folders. Its state are the numbers of the parts of the glob that the path so far can have matched."""

    def __init__(self, root: Root, parts: list[str]) -> None:
        self._root, self._parts, self._end = root, parts, len(parts)
        self._looked_at = 0
        self._matches = [
            re.compile(translate(part)).match if is_wild(part) else part.__eq__ for part in parts
        ]

    def reached(self, state: set[int]) -> frozenset[int]:
        """Return a state with what it also is because ``**`` may stand for no folder."""
        for number in sorted(state):
            while number < self._end and self._parts[number] == _FOLDERS:
                number += 1
                state.add(number)
        return frozenset(state - {self._end})

    def files(self, folder: Root, path: str, state: frozenset[int], depth: int) -> Iterator[tuple[str, int]]:
        """Yield the files in a folder, and in the folders within it."""
        if depth > MAX_DEPTH:
            raise RefusedError.at(
                f"{self._root.name}/{path[:80]}…",
                f"lies more than {MAX_DEPTH} folders deep",
                "name a folder further down in the path, or move the files",
            )
        wanted = [self._parts[number] for number in state]
        if not any(map(is_wild, wanted)):  # the names are known: nothing has to be listed
            for name in sorted(set(wanted)):
                yield from self._at(folder, path, name, None, state, depth)
            return
        try:
            with folder.entries() as entries:
                for entry in entries:
                    self._look_at_another()
                    yield from self._at(folder, path, entry.name, entry, state, depth)
        except PermissionError:  # as in pathlib, a folder that may not be listed matches nothing
            return

    def _look_at_another(self) -> None:
        self._looked_at += 1
        if self._looked_at > limits.ENTRIES_LISTED:
            raise RefusedError.at(
                f"{self._root.name}/{'/'.join(self._parts)}",
                f"cannot be matched without looking at more than {limits.ENTRIES_LISTED} files and folders",
                "write a longer folder before the first wildcard, or pack the files",
            )

    def _at(
        self,
        folder: Root,
        path: str,
        name: str,
        entry: os.DirEntry[str] | None,
        state: frozenset[int],
        depth: int,
    ) -> Iterator[tuple[str, int]]:
        """Yield what there is under one name; without an entry of a listing it may be nothing, or a link."""
        linked = entry is None or entry.is_symlink()
        after = self._after(name, state, linked)
        if not after:
            return
        try:
            found = (
                self._root.stat(path + name) if entry is None or linked else entry.stat(follow_symlinks=False)
            )
        except LeadsOutError:
            if self._end in after or folder.leads_to_folder(name):
                raise
            return  # a link to a file, which is no folder to look into
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        if stat.S_ISREG(found.st_mode) and self._end in after:
            yield path + name, found.st_size
        elif stat.S_ISDIR(found.st_mode) and after != {self._end}:
            try:
                within = self._root.folder(path + name)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                return
            with within:
                yield from self.files(within, f"{path}{name}/", self.reached(after), depth + 1)

    def _after(self, name: str, state: frozenset[int], linked: bool) -> set[int]:
        """Return the state after one more name."""
        after = set()
        for number in state:
            if self._parts[number] != _FOLDERS:
                if self._matches[number](name):
                    after.add(number + 1)
            elif not linked:
                after.add(number)
        return after
