"""Two processes, started by test_processes.py: the first works for longer than they wait for one another.

python -m tests.trainer.parallel.processes_worker <quiet|alive>; the second writes what it was told
"""

import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from tests.trainer.parallel.forked import fork

from moe_formats.failure import TransientError
from moe_trainer.parallel import processes
from moe_trainer.parallel.layout import Layout
from moe_trainer.parallel.processes import first_alone

processes.PATIENCE = timedelta(seconds=3)
processes.ALIVE_SECONDS = 0.5
WORK_SECONDS = 5.0


def work(alive: Callable[[], None]) -> str:
    until = time.monotonic() + WORK_SECONDS
    while time.monotonic() < until:
        time.sleep(0.1)
        if sys.argv[1] == "alive":
            alive()
    return "done"


def main() -> None:
    try:
        with processes.joined(Layout(processes=2)) as everyone:
            told = everyone.from_first(first_alone(everyone, work))
    except TransientError as error:
        told = error.reason
    if os.environ["RANK"] == "1":
        print(told, flush=True)


if __name__ == "__main__":
    fork(2, patience=60)
    main()
