"""What can be wrong with data: with a record, or with a whole file. Imports nothing."""

#: Most names that an error message lists.
NAMES_LISTED = 10


class UnusableError(Exception):
    """A record that is not a document, with the reason under which it is counted and what is wrong with it."""

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(f"{reason}: {what}")
        self.reason = reason
        self.what = what


class FaultyFileError(Exception):
    """A file cannot be read; the text continues a sentence that begins with its name, and ends with the fix."""


#: How files begin that are in another encoding: byte order marks of UTF-16 and UTF-32.
_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")


def check_encoding(beginning: bytes) -> None:
    """Raise UnusableError (notUtf8) for the beginning of a text that says that it is in another encoding."""
    if beginning.startswith(_OTHER_MARKS):
        raise UnusableError("notUtf8", "it begins like UTF-16 or UTF-32: convert it to UTF-8")


def check_text(text: str) -> None:
    """Raise UnusableError (empty, binary, notUtf8) for what can be no text of a document; it names the character."""
    if not text.strip(" \t\n\r\x0b\f"):  # the characters that bytes.strip() removes
        raise UnusableError("empty", "no text")
    if "\0" in text:
        raise UnusableError("binary", f"character {text.index(chr(0)) + 1} is NUL")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnusableError("notUtf8", f"character {error.start + 1} is half of a surrogate pair") from None


def listed(names: list[str]) -> str:
    """Return names for an error message."""
    shown = ", ".join(f"{name:.40}" for name in names[:NAMES_LISTED])
    return (shown or "none") + (", …" if len(names) > NAMES_LISTED else "")
