"""Control groups, by which the kernel keeps the limits of containers where this machine lets the agent make some.

Where it does not, the first process of a container watches its memory instead (init.py).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from moe_local.agent.launch import Cgroup

GROUP = "moe-local"
MOST_PROCESSES = 4096
"""Processes and threads of one container: so many that no program needs more, so few that the machine survives them."""
NEW_SECONDS = 60.0
"""A group of this age has its processes, if its container was ever started."""


@dataclass(frozen=True)
class Cgroups:
    """The folders in which the agent can make groups; None for what it cannot limit. Both are the same in version 2."""

    memory: Path | None = None
    pids: Path | None = None
    version: int = 2

    @classmethod
    def find(
        cls, root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
    ) -> Cgroups:
        """Return what this process can use, by trying it."""
        lines = (
            [line.split(":", 2) for line in membership.read_text().splitlines()]
            if membership.exists()
            else []
        )
        unified = next((path for number, _, path in lines if number == "0"), None)
        if unified is not None and (root / "cgroup.controllers").exists():
            # Processes may only be in the leaves of the tree, so our groups are made beside the agent's own.
            own = root / unified.lstrip("/")
            group = (own.parent if own != root else own) / GROUP
            controllers = _prepare(group, "memory.max", subtree=True)
            return cls(group, group) if controllers else cls()
        paths = {name: path for _, names, path in lines for name in names.split(",")}
        found = {}
        for name, file in (("memory", "memory.limit_in_bytes"), ("pids", "cgroup.procs")):
            if name in paths and _prepare(group := root / name / paths[name].lstrip("/") / GROUP, file):
                found[name] = group
        return cls(found.get("memory"), found.get("pids"), version=1)

    def plan(self, attempt: str, memory_bytes: int) -> list[Cgroup]:
        """Return the groups of one attempt of a container, whose name is unique on this node."""
        limit, tasks = str(memory_bytes), {"pids.max": str(MOST_PROCESSES)}
        groups: list[Cgroup] = []
        if self.version == 2 and self.memory:
            settings = {"memory.max": limit, "memory.oom.group": "1"} if memory_bytes else {}
            optional = {"memory.swap.max": "0"} if memory_bytes else {}
            return [_group(self.memory / attempt, settings | tasks, optional)]
        if self.memory and memory_bytes:
            settings, optional = {"memory.limit_in_bytes": limit}, {"memory.memsw.limit_in_bytes": limit}
            groups.append(_group(self.memory / attempt, settings, optional))
        if self.pids:
            groups.append(_group(self.pids / attempt, tasks, {}))
        return groups

    def sweep(self) -> None:
        """Remove the groups that no process is in any more, and whose supervisor could not remove them."""
        for top in {self.memory, self.pids} - {None}:
            assert top
            old = time.time() - NEW_SECONDS
            remove(folder for folder in top.iterdir() if folder.is_dir() and folder.stat().st_mtime < old)


def _group(folder: Path, settings: dict[str, str], optional: dict[str, str]) -> Cgroup:
    return {"folder": str(folder), "settings": settings, "optional": optional}


def remove(folders: Iterable[Path]) -> None:
    """Remove groups that are empty; the kernel refuses to remove others."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _prepare(group: Path, needed: str, *, subtree: bool = False) -> bool:
    """Make the folder of our groups, and return whether a group in it can be limited and joined."""
    trial = group / f"trial-{os.getpid()}"
    try:
        group.mkdir(exist_ok=True)
        if subtree:
            (group / "cgroup.subtree_control").write_text("+memory +pids")
        trial.mkdir(exist_ok=True)
        usable = (trial / needed).exists() and _can_join(trial)
    except OSError:
        return False
    finally:
        remove([trial])
    return usable


def _can_join(group: Path) -> bool:
    join = ["/bin/sh", "-c", 'echo 0 >"$1"', "sh", str(group / "cgroup.procs")]
    return subprocess.run(join, capture_output=True, check=False).returncode == 0
