"""Processes of a run that are forked when everything is imported, so that this is done once for all of them."""

import contextlib
import faulthandler
import os
import socket
import sys
from collections.abc import Iterable
from importlib import import_module
from random import SystemRandom


def fork(world: int, *, patience: float, later: Iterable[str] = ()) -> None:
    """Return in each of some processes, with what torchrun tells them; their parent ends when they have.

    A process ends that takes longer than ``patience`` seconds. ``later`` are modules that are imported before.
    """
    for name in later:
        import_module(name)
    port = str(free_port())
    children = []
    for rank in range(world):
        child = os.fork()
        if not child:
            faulthandler.dump_traceback_later(patience, exit=True)
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            os.environ |= place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            return
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(max(map(abs, codes)))


def free_port() -> int:
    """Return a port that is free, and that stays so until the processes meet there.

    It is not one that the system gives out by itself: a test that runs at the same time could be given it meanwhile,
    and the processes would wait for each other in vain.
    """
    while True:
        port = SystemRandom().randrange(10_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
