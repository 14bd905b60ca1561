"""Turns tokens' bytes into text that may be sent: only whole characters, and nothing of a stop string."""

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns the bytes of one answer into text, piece by piece.

    Bytes that begin a character are held back until it is complete (bytes that are not UTF-8 become U+FFFD). Text that
    may begin a stop string is held back until it is known not to.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        """Stop before the first of the strings in `stop`."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, data: bytes) -> str:
        """Take more bytes and return the text that can be sent now; sets `stopped` at a stop string."""
        return self._release(self._decoder.decode(data), end=False)

    def end(self) -> str:
        """Return the text that was held back, after the last byte."""
        return self._release(self._decoder.decode(b"", final=True), end=True)

    def _release(self, text: str, *, end: bool) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            released, self._held = self._held[: min(found)], ""
            return released
        kept = 0 if end else self._possible_beginning()
        released = self._held[: len(self._held) - kept]
        self._held = self._held[len(self._held) - kept :]
        return released

    def _possible_beginning(self) -> int:
        """Return the length of the longest suffix of the text that may begin a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0
