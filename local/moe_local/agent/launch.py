"""What the agent hands to the process that supervises a container (JSON on its standard input).

`shim.py` and `isolation.py` run under `python -S -I` to be small and fast, so they import only the standard library and
use these types only in annotations.
"""

from __future__ import annotations

from typing import Literal, TypedDict

IdentityKind = Literal["mapped", "changed", "own"]


class Mount(TypedDict):
    """One folder or file of this machine, and where the container sees it."""

    source: str
    inner: str
    """Path beneath `source`, which pods may have written; no part of it may be a link. Empty: `source` itself."""
    target: str
    readOnly: bool


class Identity(TypedDict):
    """Who the processes of a container are."""

    kind: IdentityKind
    """How they become that: `mapped`: another user of this machine, whom a user namespace shows under the pod's id;
    `changed`: another user, without a user namespace; `own`: the agent's own user, in a user namespace."""
    user: int
    """Id that the container sees, as `runAsUser` says."""
    group: int
    machineUser: int
    """Id on this machine; not read if the kind is `own`."""
    machineGroup: int


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
    ownProcesses: bool
    """Whether /proc shows the container's own processes only. False: this machine forbids to mount another /proc."""
    identity: Identity


class Trial(TypedDict):
    """What `trial.py` prints: what this machine allows."""

    kind: IdentityKind | Literal[""]
    """The best kind of identity that works; empty if there can be no namespaces."""
    ownProcesses: bool
    refused: list[str]
    """Why better ways do not work."""


class Cgroup(TypedDict):
    """One control group that contains the processes of one attempt of a container."""

    folder: str
    settings: dict[str, str]
    """What to write, by file; written before any process is in the group."""
    optional: dict[str, str]
    """The same, for files that not every kernel has: limits of swap."""


class Launch(TypedDict):
    """A container's command, resolved, so that nothing in it refers to the cluster any more."""

    command: list[str]
    environment: dict[str, str]
    workingDirectory: str
    logBytes: int
    """Bytes of log that are kept."""
    memoryBytes: int
    """Memory that its processes may use together; 0: no limit."""
    cgroups: list[Cgroup]
    """Control groups to make for it, by which the kernel keeps its limits; empty if this machine does not allow any."""
    sandbox: Sandbox | None
    """None: the command runs in this machine's own file system."""


class Execution(TypedDict):
    """A command to run in a running container (an exec probe or hook), with its namespaces, variables and folder."""

    command: list[str]
    main: int
    """The container's own process."""
    cgroups: list[str]
    """Folders of the container's control groups."""


class ProcessRecord(TypedDict):
    """Written once the command runs; `main` leads its own process group."""

    supervisor: int
    main: int
    startedAt: float
    cgroups: list[str]
    """Folders of its control groups."""


class ExitRecord(TypedDict):
    """Written when the command and all its processes have ended. Times are in seconds since the epoch."""

    code: int
    """Exit status; 128 + signal if a signal ended it; 128 if it could not be started."""
    signal: int
    startedAt: float
    finishedAt: float
    startError: str
    """Why the command could not be started; empty if it was."""
    outOfMemory: bool
    """Whether it was killed because it used more memory than its limit."""
