"""Reads the records of a jsonl file, one at a time.

A record that cannot be read is yielded as such, with its place and what is wrong with it.
"""

import io
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from moe_trainer import limits, untrusted
from moe_trainer.sources.faults import UnusableError, check_encoding, listed

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: What JSON's lists and objects become.
_CONTAINERS = (dict, list)

#: A string in JSON. It never goes back over what it has matched.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


class Record(NamedTuple):
    """One record, or the reason why it cannot be read."""

    where: str  #: Its place in the file: `line 12`, `row 3`.
    value: object = None  #: The value of the field that was asked for.
    fault: UnusableError | None = None


def numbered_lines(stream: io.BufferedIOBase) -> Iterator[tuple[int, bytes | None]]:
    """Yield the lines of a file that are not blank, with their numbers from 1; None for one that is too long to be held."""
    for number, line in enumerate(untrusted.lines(stream, limits.RECORD_BYTES), start=1):
        if line is None or line.strip():
            yield number, line


def json_lines(stream: io.BufferedIOBase, field: str) -> Iterator[Record]:
    """Yield one field of each record of a jsonl file, with line numbers from 1; blank lines are skipped."""
    for number, line in numbered_lines(stream):
        where = f"line {number}"
        try:
            yield Record(where, _field_of(line, field))
        except UnusableError as fault:
            yield Record(where, fault=fault)


def parse_object(line: bytes | None) -> dict[str, Any]:
    """Return the JSON object on a line, as ``numbered_lines`` yields it; raises UnusableError."""
    if line is None:
        raise UnusableError("tooLarge", f"longer than {limits.RECORD_BYTES} bytes")
    try:
        text = line.removeprefix(_BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        check_encoding(line)
        raise UnusableError("notUtf8", f"byte {error.start + 1} is not UTF-8") from None
    if len(text) >= 2 * limits.RECORD_CONTAINERS:  # each takes two characters
        _check_containers(text)
    try:
        record = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise _no_json(text, error) from None
    if not isinstance(record, dict):
        raise UnusableError("missingField", "not a JSON object, so it has no fields")
    for value in record.values():
        if type(value) is dict or type(value) is list:
            _check_depth(value)
    return record


def _no_json(text: str, error: ValueError) -> UnusableError:
    if "\0" in text:  # which JSON never has, and UTF-16 has in every other byte of plain English
        return UnusableError(
            "notUtf8",
            f"byte {len(text.partition(chr(0))[0].encode()) + 1} is NUL, as in UTF-16: convert it to UTF-8",
        )
    if not isinstance(error, json.JSONDecodeError):
        return UnusableError("brokenRecord", untrusted.TOO_MANY_DIGITS)
    return UnusableError("brokenRecord", f"not JSON: {error}")


def _field_of(line: bytes | None, field: str) -> object:
    record = parse_object(line)
    if field not in record:
        raise UnusableError("missingField", f"no field {field!r}; it has: {listed(list(record))}")
    return record[field]


def _check_containers(text: str) -> None:
    """Refuse a record of so many lists and objects that it would take twenty times its size in memory."""
    if _opened(text) > limits.RECORD_CONTAINERS and _opened(_STRING.sub("", text)) > limits.RECORD_CONTAINERS:
        raise UnusableError(
            "tooLarge", f"more than {limits.RECORD_CONTAINERS} lists and objects in one record"
        )


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(limits.RECORD_DEPTH - 1):
        level = [value for container in level for value in _containers_in(container)]
        if not level:
            return
    raise _too_deep()


def _containers_in(container: object) -> list[object]:
    """Return the lists and objects that are directly in a list or an object."""
    if isinstance(container, dict):
        return [value for value in container.values() if type(value) in _CONTAINERS]
    return [value for value in container if type(value) in _CONTAINERS] if isinstance(container, list) else []


def _opened(text: str) -> int:
    return text.count("[") + text.count("{")


def _too_deep() -> UnusableError:
    return UnusableError("brokenRecord", f"nested too deeply: more than {limits.RECORD_DEPTH} levels")
