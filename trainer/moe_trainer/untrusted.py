"""Reads what somebody else wrote: no more bytes and no more JSON than allowed, and no panic of a library unnoticed.

    read(path, most)     the bytes of a file, unless there are too many
    lines(file, most)    its lines, without ever holding one that is longer
    parse(data)          the value of a JSON text, unless it is too large, too deep, or holds a number that is not finite
    failing_as(make)     turns whatever a library raises in the block, panics included, into the error that ``make`` returns

The limits are in limits.py.
"""

import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from moe_formats.failure import JobError
from moe_trainer import limits

#: What is wrong with JSON that holds a whole number which Python does not read.
TOO_MANY_DIGITS = f"a whole number of more than {sys.get_int_max_str_digits():,} digits, which is the limit: write it as text"


class LimitExceeded(ValueError):
    """Something exceeds a limit; the message says what was found, and the limit."""


def read(path: Path, most: int) -> bytes:
    """Return the bytes of a file; raises LimitExceeded for more than ``most``, having read one more."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise LimitExceeded(f"it has more than {most:,} bytes, which is the limit")
    return data


def lines(file: io.BufferedIOBase | BinaryIO, most: int) -> Iterator[bytes | None]:
    """Yield the lines of a file with their line breaks; None for one that does not end within ``most`` bytes.

    No such line is ever held.
    """
    while line := file.readline(most):
        if len(line) == most and not line.endswith(b"\n"):
            while (rest := file.readline(most)) and not rest.endswith(b"\n"):
                pass
            yield None
        else:
            yield line


def parse(data: bytes) -> Any:
    """Return the value of a JSON text.

    Raises ValueError if it is not JSON; NaN and infinity are not. Raises LimitExceeded for more than JSON_VALUES values
    or more than JSON_DEPTH levels. The messages begin with "it": whoever knows the file names it.
    """
    # Each value but the outermost follows one of these bytes, so their number is known before any memory is taken.
    values = 1 + sum(map(data.count, (b",", b"[", b"{")))
    if values > limits.JSON_VALUES:
        raise LimitExceeded(f"it holds {values:,} values; the limit is {limits.JSON_VALUES:,}")
    try:
        found = json.loads(data, parse_constant=_not_finite, parse_float=_finite)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        too_long = "integer string conversion" in str(error)  # by which Python's int says it
        raise ValueError(f"it has {TOO_MANY_DIGITS}" if too_long else f"it is not JSON: {error}") from None
    level = [found]
    for _ in range(limits.JSON_DEPTH):
        level = [inner for outer in level for inner in _within(outer) if isinstance(inner, list | dict)]
    if level:
        raise _too_deep()
    return found


def is_panic(error: BaseException) -> bool:
    """Return whether an exception is a panic of a library in Rust, which PyO3 does not make an Exception."""
    return type(error).__name__ == "PanicException"


@contextmanager
def failing_as(make: Callable[[str], JobError]) -> Iterator[None]:
    """Raise ``make(what happened)`` for whatever a library raises in the block while it works on untrusted input.

    JobErrors pass as they are, and so does what is not the input's fault: memory that ran out, an interruption.
    """
    try:
        yield
    except (JobError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise make(f"{type(error).__name__}: {error}"[:500]) from None


def _within(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _too_deep() -> LimitExceeded:
    return LimitExceeded(
        f"it is nested too deeply: the limit is {limits.JSON_DEPTH} levels of lists and objects"
    )


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        _not_finite(text)
    return number


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is not a finite number")
