"""Globs over the names of objects, with the meaning that they have on disk (``pathlib.Path.glob``).

``*`` and ``?`` stand for anything but ``/``, ``[...]`` for one of some characters, ``**`` as a whole part
for any number of folders, also none.
"""

import re
from fnmatch import fnmatchcase

_WILDCARDS = re.compile(r"[*?\[]")


def matches(path: str, pattern: str) -> bool:
    """Return whether a glob matches the path of an object."""
    parts = path.split("/")
    reached = {0}  # how many parts of the path the glob may have used up so far
    for wanted in _parts(pattern):
        if wanted == "**":
            reached = set(range(min(reached, default=len(parts)), len(parts)))
        else:
            reached = {at + 1 for at in reached if at < len(parts) and fnmatchcase(parts[at], wanted)}
    return len(parts) in reached


def literal_folder(pattern: str) -> str:
    """Return the folder that everything a glob matches lies in: all that stands before the first wildcard."""
    folders = _parts(pattern)[:-1]
    literal = next((at for at, part in enumerate(folders) if _WILDCARDS.search(part)), len(folders))
    return "/".join(folders[:literal])


def _parts(pattern: str) -> list[str]:
    return [part for part in pattern.split("/") if part not in ("", ".")]
