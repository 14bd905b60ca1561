"""Work of the first process alone, for which the others wait as long as it lives and not only for PATIENCE."""

import time
from collections.abc import Callable
from typing import TypeVar

from moe_trainer.parallel.processes import Processes

T = TypeVar("T")

#: The first process tells the others this often that it is still at work.
ALIVE_SECONDS = 30.0


def first_alone(processes: Processes, work: Callable[[Callable[[], None]], T]) -> T | None:
    """Return in the first process what its work returns; the others get None, when it is done.

    The work is given what it calls again and again: one call must follow another within PATIENCE, and nothing
    else may be exchanged between the processes from the first call on.
    """
    if not processes.first:
        while processes.from_first(True):
            pass
        return None
    made = work(_Heartbeat(processes))
    processes.from_first(False)
    return made


class _Heartbeat:
    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._last = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last > ALIVE_SECONDS:
            self._processes.from_first(True)
            self._last = time.monotonic()
