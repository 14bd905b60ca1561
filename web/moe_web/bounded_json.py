"""Reads JSON from outside, within limits of depth and number.

A megabyte of brackets becomes a hundred megabytes of objects, and more once something validates each of them. So what
separates values is counted in the text, before any is made.
"""

import json
import math
import re
import sys
from typing import Any

#: Deepest nesting of lists and objects.
MAX_DEPTH = 64
#: Most commas and opening brackets in one text, outside of strings: enough for 250,000 token ids.
MAX_MARKS = 262_144

#: A string, or the start of one that does not end.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")
#: A surrogate, written as it is or escaped: half of a character, or one half of a pair that is one.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


class JsonError(ValueError):
    """The text is not JSON, or exceeds a limit; the message says which."""


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the object of a JSON text in UTF-8; raises JsonError."""
    value = parse(data)
    if not isinstance(value, dict):
        raise JsonError(f"it must be a JSON object, not {type(value).__name__}")
    return value


def parse(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8, with U+FFFD for half a surrogate pair; raises JsonError."""
    try:
        text = data.decode("utf-8-sig", "surrogatepass")
        _check(text)
        value = json.loads(text, parse_constant=_no_number, parse_float=_float, parse_int=_int)
        return _whole_characters(value) if _SURROGATE.search(text) else value
    except RecursionError:
        raise JsonError(f"it is nested more than {MAX_DEPTH} deep") from None
    except UnicodeDecodeError as error:
        raise JsonError(f"byte {error.start} is not UTF-8") from None
    except JsonError:
        raise
    except ValueError as error:
        raise JsonError(str(error)) from None


def _check(text: str) -> None:
    if not text.strip():
        raise JsonError("it is empty")
    bare = _STRING.sub("", text)
    marks = bare.count(",") + bare.count("[") + bare.count("{")
    if marks > MAX_MARKS:
        raise JsonError(f"it has {marks} commas and opening brackets; at most {MAX_MARKS} are read")
    depth = 0
    for match in _BRACKET.finditer(bare):
        depth += 1 if match[0] in "[{" else -1
        if depth > MAX_DEPTH:
            raise JsonError(f"it is nested more than {MAX_DEPTH} deep")


def _no_number(name: str) -> None:
    raise JsonError(f"{name} is not a number that JSON knows")


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise JsonError(f"{digits[:40]} is larger than any number that is read")
    return number


def _int(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        raise JsonError(f"it has an integer of more than {sys.get_int_max_str_digits()} digits") from None


def _whole_characters(value: Any) -> Any:
    """Return a value with U+FFFD for each half of a surrogate pair, which no tokenizer and no encoding knows.

    Programs that count in UTF-16, as JavaScript does, leave halves where they cut a text inside of an emoji.
    """
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
