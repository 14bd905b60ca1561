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
