"""What the agent hands to the process that supervises a container (JSON on its standard input).

`shim.py` and `isolation.py` run under `python -S -I` to stay small and quick, so they import nothing but the
standard library; they know these types only by annotation.
"""

from __future__ import annotations

from typing import TypedDict


class Mount(TypedDict):
    """One folder or file of this machine and where the container sees it."""

    source: str
    target: str
    readOnly: bool


class Sandbox(TypedDict):
    """A root file system made of this machine's, with the pod's own mounts in it."""

    root: str
    """An empty folder; the new root is mounted there, inside the container's mount namespace only."""
    hostname: str
    hidden: list[str]
    """Folders that the container sees empty."""
    mounts: list[Mount]
    keep: list[str]
    """Folders that stay visible whatever is mounted or hidden above them: the image's environment."""


class Launch(TypedDict):
    """A container's command, resolved: nothing in it refers to the cluster any more."""

    command: list[str]
    environment: dict[str, str]
    workingDirectory: str
    logBytes: int
    """How much log is kept, in bytes."""
    sandbox: Sandbox | None
    """None runs the command in this machine's own file system."""


class Execution(TypedDict):
    """A command to run beside a running container (an exec probe or hook): same namespaces, variables and folder."""

    command: list[str]
    main: int
    """The container's own process."""


class ProcessRecord(TypedDict):
    """Written once the command runs; `main` leads its own process group."""

    supervisor: int
    main: int
    startedAt: float
    namespace: str
    """The container's mount namespace; empty where it has none of its own."""


class ExitRecord(TypedDict):
    """Written when the command has ended and nothing of it is left. Times are seconds since the epoch."""

    code: int
    """Exit status; 128 + signal where a signal ended it; 128 where it could not be started."""
    signal: int
    startedAt: float
    finishedAt: float
    startError: str
    """Why the command could not be started; empty where it was."""
