"""Two processes, started by test_heartbeat.py: the first works for longer than they wait for one another.

python heartbeat_worker.py <quiet|alive>; the second writes what it was told
"""

import os
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from moe_trainer.failure import TransientError
from moe_trainer.parallel import heartbeat, processes
from moe_trainer.parallel.heartbeat import first_alone
from moe_trainer.parallel.layout import Layout

processes.PATIENCE = timedelta(seconds=3)
heartbeat.ALIVE_SECONDS = 0.5
WORK_SECONDS = 5.0


def work(alive: Callable[[], None]) -> str:
    until = time.monotonic() + WORK_SECONDS
    while time.monotonic() < until:
        time.sleep(0.1)
        if sys.argv[1] == "alive":
            alive()
    return "done"


def main() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    second = os.fork() == 0
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "RANK": str(int(second)),
    }
    try:
        with processes.joined(Layout(processes=2)) as everyone:
            told = everyone.from_first(first_alone(everyone, work))
    except TransientError as error:
        told = error.reason
    if second:
        print(told, flush=True)
        os._exit(0)
    os.wait()


if __name__ == "__main__":
    main()
