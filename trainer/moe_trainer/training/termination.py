"""SIGTERM as a request that a loop sees when it is ready to, not as an interruption."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """Whether somebody has asked this process to end."""

    requested: bool = False


@contextmanager
def stop_on_sigterm() -> Iterator[Stop]:
    """Yield a Stop that SIGTERM sets; in the main thread only."""
    stop = Stop()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.requested = True

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
