"""Whether a text is Python: whether it parses. Nothing is compiled or executed."""

import ast
import warnings

from moe_trainer import limits
from moe_trainer.text.content import BYTE_ORDER_MARK


def parses(text: str) -> bool:
    """Return whether a text parses as a Python module; one that is too long or nested too deeply does not.

    A byte order mark may come first, as in a file that Python reads.
    """
    if len(text) > limits.CODE_CHARACTERS:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes and the like, which are legal
            ast.parse(text.removeprefix(BYTE_ORDER_MARK))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def piece_parses(text: str) -> bool:
    """Return whether a text parses by itself, or as a piece of a longer file that was cut within blocks.

    Long files are cut at blank lines (sources/cutting.py), so a piece may begin in the body of a function. Therefore
    a block is opened before the piece for every outer indentation that occurs in it.
    """
    return parses(text) or (text[:1] in (" ", "\t") and parses(_opened(text) + text))


def _opened(text: str) -> str:
    indentations: list[str] = []
    for line in text.splitlines():
        code = line.lstrip(" \t")
        indentation = line[: len(line) - len(code)]
        if code and (not indentations or len(indentation) < len(indentations[-1])):
            indentations.append(indentation)
    outer = indentations[1:] + ([""] if indentations and indentations[-1] else [])
    return "".join(f"{indentation}if 1:\n" for indentation in reversed(outer))
