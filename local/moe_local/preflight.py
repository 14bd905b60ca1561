"""Checks what this machine must have before a cluster is started on it, and says how to fix what is missing."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from moe_local.agent.machine import try_out
from moe_local.errors import LocalClusterError

GIB = 1 << 30
NEEDED_DISK_BYTES = 1 * GIB
NEEDED_MEMORY_BYTES = 1 * GIB
"""For the control plane, the node agent and the operator together; the pods need more."""
BUILD_DISK_BYTES = 6 * GIB
"""For Go's module and build caches while the control plane is built."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be. If it is not `fatal`, the cluster works with restrictions."""

    message: str
    fix: str
    fatal: bool


@dataclass(frozen=True)
class Machine:
    """What was measured on a machine."""

    platform: str
    python: tuple[int, int]
    free_disk_bytes: int
    available_memory_bytes: int
    lacks: tuple[str, ...]
    """What cannot be isolated here, one sentence each (agent/machine.py)."""
    must_build: bool


def measure(folder: Path, *, must_build: bool, isolation: bool = False) -> Machine:
    """Measure this machine; `folder` need not exist yet. Only with `isolation` is that tried, which takes a moment."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return Machine(
        platform=sys.platform,
        python=sys.version_info[:2],
        free_disk_bytes=shutil.disk_usage(existing).free,
        available_memory_bytes=psutil.virtual_memory().available,
        lacks=try_out().lacks if isolation and sys.platform == "linux" else (),
        must_build=must_build,
    )


def judge(machine: Machine) -> list[Finding]:
    """Return everything that is wrong, the fatal findings first."""
    needed_disk = BUILD_DISK_BYTES if machine.must_build else NEEDED_DISK_BYTES
    checks = [
        (
            machine.platform != "linux",
            Finding(
                f"this is {machine.platform}; a local cluster needs Linux's mount namespaces and /proc",
                "use Linux or WSL2, or create a cluster with kind",
                fatal=True,
            ),
        ),
        (
            machine.python < (3, 11),
            Finding(
                f"this is Python {machine.python[0]}.{machine.python[1]}; 3.11 or newer is needed",
                "create the virtual environment with a newer Python (make PYTHON=/path/to/python3.11)",
                fatal=True,
            ),
        ),
        (
            machine.free_disk_bytes < needed_disk,
            Finding(
                f"{machine.free_disk_bytes / GIB:.1f} GiB of disk are free; {needed_disk / GIB:.0f} GiB are needed"
                + (" to build the control plane (once)" if machine.must_build else ""),
                "free some, or set MOE_LOCAL_STATE and XDG_CACHE_HOME to folders on another disk",
                fatal=True,
            ),
        ),
        (
            machine.available_memory_bytes < NEEDED_MEMORY_BYTES,
            Finding(
                f"{machine.available_memory_bytes / GIB:.1f} GiB of memory are available; the cluster's own parts "
                f"take up to {NEEDED_MEMORY_BYTES / GIB:.0f} GiB",
                "end other programs, or give the virtual machine more memory",
                fatal=False,
            ),
        ),
        (
            bool(machine.lacks),
            Finding(
                f"this machine does not allow everything by which pods are isolated: {'; '.join(machine.lacks)}",
                "run only pods that you trust as much as programs that you start yourself; elsewhere, allow user "
                "namespaces (sysctl kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0), "
                "or in a container give it the capability SYS_ADMIN",
                fatal=False,
            ),
        ),
    ]
    return sorted((finding for failed, finding in checks if failed), key=lambda finding: not finding.fatal)


def require_fit(folder: Path, *, must_build: bool) -> None:
    """Raise LocalClusterError for the first fatal finding."""
    for finding in judge(measure(folder, must_build=must_build)):
        if finding.fatal:
            raise LocalClusterError(finding.message, fix=finding.fix)
