"""Finds containers that still run although the node agent is gone, and ends them.

The agent is made so that containers outlive it, so when a cluster stops, what the agent has left has to be stopped
from outside. Each container has one supervisor process (moe_local/agent/shim.py), whose arguments name a folder of
the cluster. It passes SIGTERM on to the container; SIGUSR1 kills the container with everything that it started.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import psutil


def stop_containers(agent_folder: Path, *, grace: float) -> int:
    """End every container of the agent with this folder, and return how many there were."""
    supervisors = find_supervisors(agent_folder)
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGUSR1, 5.0), (signal.SIGKILL, 5.0)):
        for supervisor in supervisors:
            with suppress(psutil.NoSuchProcess):  # also if the pid belongs to another process by now
                supervisor.send_signal(number)
        _, alive = psutil.wait_procs(supervisors, timeout=seconds)
        if not alive:
            break
    return len(supervisors)


def find_supervisors(agent_folder: Path) -> list[psutil.Process]:
    """Return the supervisors of all containers of the agent with this folder."""
    processes = psutil.process_iter(["cmdline"])
    return [process for process in processes if _supervises(process.info["cmdline"] or [], agent_folder)]


def _supervises(arguments: list[str], agent_folder: Path) -> bool:
    match arguments:
        case [*_, program, "run", folder]:
            return program.endswith("/shim.py") and Path(folder).is_relative_to(agent_folder)
    return False
