"""The first process of an isolated container: starts the command, passes SIGTERM on, and reaps what it leaves behind.

It is process 1 of the container's PID namespace, so when it ends, the kernel kills everything in the container. It has
become the pod's user before the command starts, and no process of the container can trace or stop it.

Only the standard library is imported, as in shim.py, whose child it is.
"""

from __future__ import annotations

import ctypes
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TITLE = b"moe-container-init"
OUT_OF_MEMORY = b"memory"
WATCH_SECONDS = 0.25
MOST_DESCRIPTORS = 1024
"""More than the supervisor ever opens."""
PAGE = os.sysconf("SC_PAGE_SIZE")


def run(command: Callable[[], None], ending: int, memory_bytes: int) -> None:
    """Fork `command`, which does not return, and end with it. Its wait status is written to `ending`.

    If `memory_bytes` is not 0 and the container uses more, OUT_OF_MEMORY is written instead, and all of it ends.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # one that comes now is passed on below
    main = os.fork()
    if main == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        command()
    signal.set_wakeup_fd(-1)
    _keep_only(ending)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: _pass_on(main))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if memory_bytes:
        signal.signal(signal.SIGALRM, lambda *_: _end_if_above(memory_bytes, ending))
        signal.setitimer(signal.ITIMER_REAL, WATCH_SECONDS, WATCH_SECONDS)
    while True:
        process, status = os.waitpid(-1, 0)  # continues after the signals' functions have run
        if process == main:
            _end(ending, b"%d" % status)


def _end(ending: int, word: bytes) -> None:
    os.write(ending, word)
    os._exit(0)


def _pass_on(main: int) -> None:
    try:
        os.kill(main, signal.SIGTERM)
    except ProcessLookupError:
        return  # it has just ended


def _keep_only(ending: int) -> None:
    """Close what belongs to the supervisor or the command, such as the output, whose end the supervisor waits for."""
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(3, ending)
    os.closerange(ending + 1, MOST_DESCRIPTORS)


def retitle() -> None:
    """Show a name of its own in `ps`: a forked process has that of the supervisor, by which supervisors are found."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, the 48th and 49th field
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, TITLE, min(len(TITLE), end - start - 1))


# Memory, where the kernel keeps no limit for us


def _end_if_above(limit: int, ending: int) -> None:
    processes = [name for name in os.listdir("/proc") if name.isdigit()]
    # The sum of the resident sizes counts shared pages several times, so the exact one is only needed above the limit.
    if sum(map(_resident, processes)) > limit and sum(map(_proportional, processes)) > limit:
        _end(ending, OUT_OF_MEMORY)


def _resident(process: str) -> int:
    """Return the resident memory of a process in bytes; 0 if it has ended."""
    try:
        with open(f"/proc/{process}/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE
    except OSError:
        return 0


def _proportional(process: str) -> int:
    """Return the resident memory of a process, with its share of pages that it shares; all of it if that is secret."""
    try:
        with open(f"/proc/{process}/smaps_rollup", "rb") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
    except (OSError, StopIteration):
        return _resident(process)
