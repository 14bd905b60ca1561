"""Applies a function to many batches in several processes; results come in the order of the batches.

Processes are spawned, not forked, because the libraries that read data have threads. Each has a pipe of its own and
ends when the other end is closed, so that none outlives a parent that was killed.
"""

from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from moe_formats.failure import TransientError

Given = TypeVar("Given")
Made = TypeVar("Made")

#: The first batches are processed here: for fewer, starting a process is not worth it.
BATCHES_ALONE = 16


class Workers(Generic[Given, Made]):
    """Processes that apply a function, which they must be able to import; with one process, this one does the work."""

    def __init__(self, work: Callable[[Given], Made], processes: int) -> None:
        self._work = work
        self._processes = processes if processes > 1 else 0
        self._alone = BATCHES_ALONE
        self._connections: list[Connection] = []
        self._children: list[BaseProcess] = []

    def __enter__(self) -> "Workers[Given, Made]":
        return self

    def __exit__(self, *error: object) -> None:
        for connection in self._connections:
            connection.close()
        for child in self._children:
            child.join()

    def map(self, batches: Iterable[Given]) -> Iterator[Made]:
        """Yield the function's result for each batch; one batch per process is being worked on."""
        working: list[Connection] = []
        for batch in batches:
            if not self._processes or self._alone > 0:
                self._alone -= 1
                yield self._work(batch)
                continue
            if len(working) < self._processes:
                working.append(self._worker(len(working)))
                working[-1].send(batch)
                continue
            idle = working.pop(0)
            made = self._received(idle)
            idle.send(batch)  # before its result is used, so that it works meanwhile
            working.append(idle)
            yield made
        for connection in working:
            yield self._received(connection)

    def _worker(self, number: int) -> Connection:
        if number == len(self._connections):
            context = get_context("spawn")
            ours, theirs = context.Pipe()
            child = context.Process(target=_serve, args=(theirs, self._work), daemon=True)
            child.start()
            theirs.close()
            self._connections.append(ours)
            self._children.append(child)
        return self._connections[number]

    def _received(self, connection: Connection) -> Made:
        try:
            made: Made | _Failed = connection.recv()
        except (EOFError, ConnectionResetError):
            raise TransientError(
                "Crashed", "a process that read the data ended unexpectedly, perhaps for lack of memory."
            ) from None
        if isinstance(made, _Failed):
            raise TransientError("Crashed", f"while the data was read: {made.what}")
        return made


class _Failed:
    def __init__(self, what: str) -> None:
        self.what = what


def _serve(connection: Connection, work: Callable[[Given], Made]) -> None:
    while True:
        try:
            batch = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            made: Made | _Failed = work(batch)
        except Exception as error:  # the border: it is raised again where it was asked for
            made = _Failed(f"{type(error).__name__}: {error}")
        try:
            connection.send(made)
        except BrokenPipeError:  # nobody is waiting for it any more
            return
