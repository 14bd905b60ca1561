"""A stream of known size whose bytes lie elsewhere: it keeps the position, and a subclass fetches the bytes."""

import io


class PositionedStream(io.RawIOBase):
    """A readable, seekable stream. A subclass implements ``readinto``, which moves ``position`` on."""

    def __init__(self, size: int) -> None:
        """Begin at the first of ``size`` bytes."""
        self.size = size
        self.position = 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that the position can be set."""
        return True

    def tell(self) -> int:
        """Return the position, in bytes from the beginning."""
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position, which may lie beyond the end, and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = max(0, base + offset)
        return self.position
