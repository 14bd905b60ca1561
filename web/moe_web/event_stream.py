"""Server-sent events: passes on whole events only, and ends a stream that breaks off with an error event.

A server that dies inside of an event leaves half of one. If it were passed on, clients would read it together with the
error event that follows, and understand neither.
"""

import json
from typing import Any

#: Largest event, in bytes. A stream with a larger one breaks off, since it cannot be held back until it is whole.
MAX_EVENT_BYTES = 64 * 1024 * 1024

_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


class EventTooLarge(Exception):
    """An event does not end within MAX_EVENT_BYTES."""


class WholeEvents:
    """Holds back the bytes of a stream until the event that they belong to is complete."""

    def __init__(self) -> None:
        """Begin with nothing held back."""
        self._held = bytearray()

    def take(self, chunk: bytes) -> bytes:
        """Return the events that are complete with `chunk`; raises EventTooLarge."""
        searched = max(0, len(self._held) - 3)
        self._held += chunk
        end = max(
            (at + len(mark) for mark in _ENDS if (at := self._held.rfind(mark, searched)) >= 0), default=0
        )
        if len(self._held) - end > MAX_EVENT_BYTES:
            raise EventTooLarge
        whole = bytes(self._held[:end])
        del self._held[:end]
        return whole

    def rest(self) -> bytes:
        """Return what is held back when a stream has ended by itself: its last event may lack the empty line."""
        return bytes(self._held)


def event(value: dict[str, Any]) -> bytes:
    """Return a value as an event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"
