"""What the agent hands to the process that supervises a container (JSON on its standard input).

`shim.py` and `isolation.py` run under `python -S -I` to be small and fast, so they import only the standard library and
use these types only in annotations.
"""

from __future__ import annotations

from typing import TypedDict


class Mount(TypedDict):
    """One folder or file of this machine, and where the container sees it."""

    source: str
    target: str
    readOnly: bool


class Sandbox(TypedDict):
    """A root file system made from this machine's, with the pod's own mounts in it."""

    root: str
    """An empty folder. The new root is mounted there, only inside the container's mount namespace."""
    hostname: str
    hidden: list[str]
    """Folders that look empty to the container."""
    mounts: list[Mount]
    keep: list[str]
    """Folders that stay visible even if something is mounted or hidden above them: the image's environment."""


class Launch(TypedDict):
    """A container's command, resolved, so that nothing in it refers to the cluster any more."""

    command: list[str]
    environment: dict[str, str]
    workingDirectory: str
    logBytes: int
    """Bytes of log that are kept."""
    sandbox: Sandbox | None
    """None: the command runs in this machine's own file system."""


class Execution(TypedDict):
    """A command to run in a running container (an exec probe or hook), with its namespaces, variables and folder."""

    command: list[str]
    main: int
    """The container's own process."""


class ProcessRecord(TypedDict):
    """Written once the command runs; `main` leads its own process group."""

    supervisor: int
    main: int
    startedAt: float
    namespace: str
    """The container's mount namespace; empty if it has none of its own."""


class ExitRecord(TypedDict):
    """Written when the command and all its processes have ended. Times are in seconds since the epoch."""

    code: int
    """Exit status; 128 + signal if a signal ended it; 128 if it could not be started."""
    signal: int
    startedAt: float
    finishedAt: float
    startError: str
    """Why the command could not be started; empty if it was."""
