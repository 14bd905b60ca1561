"""What this machine allows the agent to keep apart, found once at start by trying it, and told in words."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from moe_local.agent.cgroups import Cgroups
from moe_local.agent.launch import Identity, IdentityKind, Trial
from moe_local.agent.processes import PYTHON

TRIAL = Path(__file__).with_name("trial.py")
POD_USER = 65531
"""User and group of this machine that pods run as if the agent runs as root; reserved for no purpose by any system."""


@dataclass(frozen=True)
class Isolation:
    """How containers are kept apart from this machine."""

    kind: IdentityKind | Literal[""]
    """How they get their user (launch.Identity); empty: they run as the agent's user in the machine's namespaces."""
    own_processes: bool = True
    why: str = ""
    """What was refused, if something is lacking."""
    agent_user: int = 0
    agent_group: int = 0
    cgroups: Cgroups = field(default_factory=Cgroups)

    @property
    def owner(self) -> int | None:
        """The user to whom the files of pods belong; None if that is the agent's own."""
        return POD_USER if self.kind in ("mapped", "changed") else None

    def identity(self, user: int | None, group: int | None) -> Identity:
        """Return who a container is that asks for this user and group; for those of the node if it asks for none."""
        machine_user = self.agent_user if self.owner is None else POD_USER
        machine_group = self.agent_group if self.owner is None else POD_USER
        return {
            "kind": self.kind or "own",
            "user": machine_user if user is None else user,
            "group": machine_group if group is None else group,
            "machineUser": machine_user,
            "machineGroup": machine_group,
        }

    @property
    def lacks(self) -> tuple[str, ...]:
        """What is not isolated here but would be elsewhere, one sentence each; empty if nothing is lacking."""
        sentences = []
        if not self.kind:
            who = "root" if self.agent_user == 0 else "the user who started the cluster"
            sentences.append(
                f"pods run as {who}, without a file system and process ids of their own: "
                "they can read the cluster's keys and whatever else that user can read, and signal its processes"
            )
        elif self.owner is None and self.agent_user == 0:
            sentences.append("pods run as user 0 of this machine, although without any capability")
        if self.kind and not self.own_processes:
            sentences.append("pods see the names and arguments of all processes of this machine")
        if not self.kind and not self.cgroups.memory:
            sentences.append("memory limits of pods are not kept")
        return tuple(sentences)


def try_out() -> Isolation:
    """Try namespaces, users and control groups on this machine, and return the best that works."""
    user = str(POD_USER)
    trial = subprocess.run(
        [*PYTHON, str(TRIAL), user, user], capture_output=True, text=True, timeout=30, check=False
    )
    groups = Cgroups.find()
    try:
        found = cast(Trial, json.loads(trial.stdout))
    except ValueError:
        return not_isolated(
            (trial.stderr.strip().splitlines() or [f"exit status {trial.returncode}"])[-1], groups
        )
    if not found["kind"]:
        return not_isolated("; ".join(dict.fromkeys(found["refused"])), groups)
    why = "; ".join(dict.fromkeys(found["refused"]))
    return Isolation(found["kind"], found["ownProcesses"], why, os.geteuid(), os.getegid(), groups)


def not_isolated(why: str, cgroups: Cgroups | None = None) -> Isolation:
    """Return what is left if there are no namespaces."""
    groups = Cgroups() if cgroups is None else cgroups
    return Isolation(
        "", own_processes=False, why=why, agent_user=os.geteuid(), agent_group=os.getegid(), cgroups=groups
    )
