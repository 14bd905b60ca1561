"""Whether a text is Python, by its syntax tree alone. Nothing is compiled or executed."""

import ast
import warnings

#: Longer texts are not parsed: the parser's memory grows with what it reads.
MAX_CHARACTERS = 256 * 1024


def parses(text: str) -> bool:
    """Return whether a text parses as a Python module; one that is too long or too deep does not."""
    if len(text) > MAX_CHARACTERS:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes and the like, which are legal
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def piece_parses(text: str) -> bool:
    """Return whether a text parses, or would as a piece of a longer file that was cut inside of blocks.

    Long files are cut at blank lines (sources/cutting.py): a piece may begin in a function's body. So blocks are
    opened before it for every indentation that it falls back to.
    """
    return parses(text) or (text[:1] in (" ", "\t") and parses(_opened(text) + text))


def _opened(text: str) -> str:
    indentations: list[str] = []
    for line in text.splitlines():
        code = line.lstrip(" \t")
        indentation = line[: len(line) - len(code)]
        if code and (not indentations or len(indentation) < len(indentations[-1])):
            indentations.append(indentation)
    outer = indentations[1:] + ([""] if indentations[-1] else [])
    return "".join(f"{indentation}if 1:\n" for indentation in reversed(outer))
