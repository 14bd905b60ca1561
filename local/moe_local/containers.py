"""Containers that still run although the node agent is gone: found, and asked to end, without it.

The agent is built so that containers outlive it. So when a cluster stops, whatever it left has to be stopped by
somebody else. Each container has one supervisor process (moe_local/agent/shim.py), whose arguments name a folder of
the cluster; SIGTERM reaches the container, SIGUSR1 kills it with all that it started.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import psutil


def stop_containers(agent_folder: Path, *, grace: float) -> int:
    """End every container of the agent that has this folder; returns how many there were."""
    supervisors = find_supervisors(agent_folder)
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGUSR1, 5.0), (signal.SIGKILL, 5.0)):
        for supervisor in supervisors:
            with suppress(psutil.NoSuchProcess):  # also where the pid is somebody else's by now
                supervisor.send_signal(number)
        _, alive = psutil.wait_procs(supervisors, timeout=seconds)
        if not alive:
            break
    return len(supervisors)


def find_supervisors(agent_folder: Path) -> list[psutil.Process]:
    """The supervisors of all containers of the agent that has this folder."""
    processes = psutil.process_iter(["cmdline"])
    return [process for process in processes if _supervises(process.info["cmdline"] or [], agent_folder)]


def _supervises(arguments: list[str], agent_folder: Path) -> bool:
    match arguments:
        case [*_, program, "run", folder]:
            return program.endswith("/shim.py") and Path(folder).is_relative_to(agent_folder)
    return False
