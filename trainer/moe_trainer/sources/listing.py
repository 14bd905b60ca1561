"""Lists the files beneath a folder that a glob matches, without leaving the folder (moe_formats/beneath.py).

A glob means what it means to ``pathlib.Path.glob``, and ``**`` walks through links as every other part does, as long as they
stay beneath the root. With ``**``, links may lead to a folder by many paths, or back to a folder above. So folders are
walked without links first, and then by links, in the order of their paths, unless everything that the glob can match
there was found by another path. A folder is listed once, however many ``**`` a glob has.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from fnmatch import translate
from typing import NamedTuple

from moe_formats.beneath import RefusedError, Root, kind_of
from moe_trainer import limits

#: Most folders within each other: each one on the way is held open.
MAX_DEPTH = 128

#: Errors that say that there is nothing that can be looked at.
NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)

_WILDCARDS = re.compile(r"[*?\[]")
_FOLDERS = "**"


#: What file systems keep for themselves, directly in their root; only the superuser may list it.
_OF_THE_FILE_SYSTEM = "lost+found"


class LeftOut(NamedTuple):
    """What a glob matches and cannot be read."""

    path: str
    what: str  #: Continues a sentence that begins with the path.


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


def list_files(root: Root, pattern: str, left_out: list[LeftOut] | None = None) -> Iterator[tuple[str, int]]:
    """Yield the path and the size of each file that a glob matches, in no particular order.

    What else it matches goes into ``left_out``: links to nothing, pipes and the like, folders that may not be listed.
    Raises ValueError for a glob without a meaning, and RefusedError (PathNotAllowed) for a link that leads out of the root.
    """
    parts = parts_of(pattern)
    if not parts or pattern.startswith("/"):
        raise ValueError("it must be relative and name files")
    if ".." in parts:
        raise ValueError("'..' leads out of the root")
    if any(_FOLDERS in part and part != _FOLDERS for part in parts):
        raise ValueError("'**' can only be an entire part of it")
    return _Walk(root, parts, [] if left_out is None else left_out).files()


#: The numbers of the parts of a glob that the path so far can have matched.
State = frozenset[int]


class _Place(NamedTuple):
    """A folder on the walk."""

    path: str  #: As the glob matches it, with ``/`` at its end; empty for the root.
    real: str  #: The same without links.
    state: State
    depth: int


class _Walk:
    """A walk through folders."""

    def __init__(self, root: Root, parts: list[str], left_out: list[LeftOut]) -> None:
        self._root, self._parts, self._end = root, parts, len(parts)
        self._left_out = left_out
        self._looked_at = 0
        self._matches = [
            re.compile(translate(part)).match if is_wild(part) else part.__eq__ for part in parts
        ]
        self._start = self._reached({0})
        #: With ``**``: links to folders that are still to be walked through, and the states of folders that were.
        self._deep = _FOLDERS in parts
        self._links: list[_Place] = []
        self._walked: dict[str, list[State]] = {}

    def files(self) -> Iterator[tuple[str, int]]:
        """Yield the files beneath the root, those in linked folders last."""
        yield from self._files(self._root, _Place("", "", self._start, 0))
        while self._links:
            links, self._links = sorted(self._links), []
            for place in links:
                yield from self._beneath(place)

    def _beneath(self, place: _Place) -> Iterator[tuple[str, int]]:
        """Yield the files of a folder beneath the root, unless all of them were found by another path."""
        try:
            if place.path != place.real:
                real = self._root.resolved(place.path)
                place = place._replace(real=real and f"{real}/")
                if place.path != place.real and self._is_walked(place):
                    return
                self._walked.setdefault(place.real, []).append(place.state)
            folder = self._root.folder(place.path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        with folder:
            yield from self._files(folder, place)

    def _files(self, folder: Root, place: _Place) -> Iterator[tuple[str, int]]:
        """Yield the files in a folder, and in the folders within it."""
        if place.depth > MAX_DEPTH:
            raise RefusedError.at(
                f"{self._root.name}/{place.path[:80]}…",
                f"lies more than {MAX_DEPTH} folders deep",
                "name a folder further down in the path, or move the files",
            )
        wanted = [self._parts[number] for number in place.state]
        if not any(map(is_wild, wanted)):  # the names are known: nothing has to be listed
            for name in sorted(set(wanted)):
                yield from self._at(folder, place, name, None)
            return
        try:
            with folder.entries() as entries:
                for entry in entries:
                    self._look_at_another()
                    yield from self._at(folder, place, entry.name, entry)
        except PermissionError:
            if place.path != f"{_OF_THE_FILE_SYSTEM}/":
                self._leave_out(place.path[:-1], f"may not be listed by user {os.getuid()}")

    def _look_at_another(self) -> None:
        self._looked_at += 1
        if self._looked_at > limits.ENTRIES_LISTED:
            raise RefusedError.at(
                f"{self._root.name}/{'/'.join(self._parts)}",
                f"cannot be matched without looking at more than {limits.ENTRIES_LISTED} files and folders",
                "write a longer folder before the first wildcard, or pack the files",
            )

    def _at(
        self, folder: Root, place: _Place, name: str, entry: os.DirEntry[str] | None
    ) -> Iterator[tuple[str, int]]:
        """Yield what there is under one name; without an entry of a listing it may be nothing, or a link."""
        linked = entry is None or entry.is_symlink()
        after, path = self._after(name, place.state), place.path + name
        if not after:
            return
        try:
            found = self._root.stat(path) if entry is None or linked else entry.stat(follow_symlinks=False)
        except RefusedError:
            if self._end in after or folder.leads_to_folder(name):
                raise
            return  # a link to a file, or to itself, which is no folder to look into
        except OSError as error:
            if error.errno not in NOTHING_THERE:
                raise
            if entry is not None and self._end in after:
                self._leave_out(path, "is a link to nothing" if linked else "may not be looked at")
            return
        if stat.S_ISDIR(found.st_mode):
            if after != {self._end}:
                yield from self._within(place, name, self._reached(after), linked)
        elif self._end in after:
            if stat.S_ISREG(found.st_mode):
                yield path, found.st_size
            else:
                self._leave_out(path, f"is {kind_of(found.st_mode)}")

    def _within(self, place: _Place, name: str, state: State, linked: bool) -> Iterator[tuple[str, int]]:
        """Yield the files in a folder within another one, or keep a link to it for later."""
        within = _Place(f"{place.path}{name}/", f"{place.real}{name}/", state, place.depth + 1)
        if linked and self._deep:
            self._links.append(within._replace(real=""))
        else:
            yield from self._beneath(within)

    def _leave_out(self, path: str, what: str) -> None:
        if len(self._left_out) < limits.FILES_MATCHED:
            self._left_out.append(LeftOut(path, what))

    def _after(self, name: str, state: State) -> set[int]:
        """Return the state after one more name."""
        after = set()
        for number in state:
            if self._parts[number] == _FOLDERS:
                after.add(number)
            elif self._matches[number](name):
                after.add(number + 1)
        return after

    def _reached(self, state: set[int]) -> State:
        """Return a state with what it also is because ``**`` may stand for no folder."""
        for number in sorted(state):
            while number < self._end and self._parts[number] == _FOLDERS:
                number += 1
                state.add(number)
        return frozenset(state - {self._end})

    def _is_walked(self, place: _Place) -> bool:
        """Return whether all that the glob can match in a folder was found there by a path without links, or another link."""
        state = self._start
        for name in place.real.split("/")[:-1]:
            state = self._reached(self._after(name, state))
        return any(place.state <= walked for walked in (state, *self._walked.get(place.real, ())))
