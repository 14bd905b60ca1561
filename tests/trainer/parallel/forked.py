"""Processes of a run that are forked when everything is imported, so that this is done once for all of them."""

import faulthandler
import os
import socket
import sys
from collections.abc import Iterable
from importlib import import_module


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
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port: int = opened.getsockname()[1]
        return port
