"""What a container is started with: its command and files, isolated or, if this machine does not allow that, rewritten."""

from __future__ import annotations

import functools
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from moe_local.agent.config import AgentConfig, Image
from moe_local.agent.environment import ConfigurationError, command, complete, rewrite
from moe_local.agent.launch import Cgroup, Identity, Launch, Mount
from moe_local.agent.machine import Isolation
from moe_local.agent.pod import Container, Pod
from moe_local.agent.processes import LOG_BYTES
from moe_local.agent.security import asked_group, asked_user, memory_limit
from moe_local.agent.volumes import give

RESOLVER = "/etc/resolv.conf"
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
TERMINATION_LOG = "MOE_TERMINATION_LOG"
"""Names the file for the termination message of our own containers; needed if paths are rewritten."""


class ImageError(ConfigurationError):
    """The node has no such image, and waiting will not change that."""


def find_image(images: Mapping[str, Image], name: str) -> Image:
    """Return the environment for an image name, with or without its tag. Raises ImageError."""
    base, colon, tag = name.rpartition(":")
    untagged = base if colon and "/" not in tag else name
    found = images.get(name) or images.get(untagged)
    if found is None:
        known = ", ".join(sorted(images)) or "none"
        raise ImageError(f'image "{name}" is not in this node\'s table of images ({known})')
    return found


@functools.cache
def needed_folders(environment: Path) -> tuple[str, ...]:
    """Return the folders that an environment's programs need: its own, its interpreter's, and those of editable packages."""
    folders = [environment]
    settings = environment / "pyvenv.cfg"
    if settings.exists():
        pairs = [line.partition("=") for line in settings.read_text().splitlines()]
        folders += [Path(value.strip()).parent for key, _, value in pairs if key.strip() == "home"]
    for path_file in environment.glob("lib/python3*/site-packages/*.pth"):
        folders += [Path(line) for line in path_file.read_text().splitlines() if line.startswith("/")]
    return tuple(str(folder) for folder in folders if folder.is_dir() and folder != Path("/"))


def home_folder() -> list[str]:
    """Return the home folder of the agent's user; nothing for a user without a name."""
    try:
        return [pwd.getpwuid(os.geteuid()).pw_dir]
    except KeyError:
        return []


@dataclass(frozen=True)
class Place:
    """The folders of one attempt of a container."""

    pod_folder: Path
    attempt_folder: Path

    def make(self, owner: int | None) -> None:
        """Create what the container's own mounts show; what it may write belongs to the user that pods run as."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.termination_log.touch()
        self.resolver.write_text("multi on\n")
        for path in (self.temporary, self.termination_log):
            give(path, owner)

    @property
    def temporary(self) -> Path:
        """Its /tmp."""
        return self.attempt_folder / "tmp"

    @property
    def termination_log(self) -> Path:
        """Its termination message."""
        return self.attempt_folder / "termination-log"

    @property
    def hosts(self) -> Path:
        """Its /etc/hosts, one for the whole pod."""
        return self.pod_folder / "hosts"

    @property
    def resolver(self) -> Path:
        """Its /etc/host.conf, by which a name in the hosts file resolves to all of its addresses."""
        return self.attempt_folder / "host.conf"

    def name_user(self, identity: Identity) -> list[Mount]:
        """Return mounts of user and group lists that have only root, nobody and the container's own user.

        Programs ask for the name of their user and fail if it has none.
        """
        user, group = identity["user"], identity["group"]
        users = {0: "root:x:0:0::/root:/bin/sh", 65534: "nobody:x:65534:65534::/:/bin/sh"}
        groups = {0: "root:x:0:", 65534: "nogroup:x:65534:"}
        users.setdefault(user, f"pod:x:{user}:{group}::/tmp:/bin/sh")
        groups.setdefault(group, f"pod:x:{group}:")
        mounts = []
        for name, lines in (("passwd", users), ("group", groups)):
            file = self.attempt_folder / name
            file.write_text("\n".join(lines.values()) + "\n")
            mounts.append(_whole(file, f"/etc/{name}", read_only=True))
        return mounts

    def own_mounts(self, container: Container) -> list[Mount]:
        """Return the mounts that every container has."""
        return [
            _whole(self.temporary, "/tmp"),
            _whole(self.hosts, "/etc/hosts", read_only=True),
            _whole(self.resolver, "/etc/host.conf", read_only=True),
            _whole(self.termination_log, container.termination_message_path),
        ]


def _whole(source: Path, target: str, *, read_only: bool = False) -> Mount:
    return {"source": str(source), "inner": "", "target": target, "readOnly": read_only}


def isolated(
    pod: Pod,
    container: Container,
    *,
    image: Image,
    variables: Mapping[str, str],
    mounts: list[Mount],
    place: Place,
    config: AgentConfig,
    isolation: Isolation,
) -> Launch:
    """Return a launch with everything at the paths that the pod asks for. Raises ConfigurationError."""
    targets = {mount["target"] for mount in mounts}
    identity = isolation.identity(asked_user(pod, container), asked_group(pod, container))
    everything = place.own_mounts(container) + place.name_user(identity)
    own = [mount for mount in everything if mount["target"] not in targets]
    return {
        "command": command(container, variables),
        "environment": complete(variables, image_bin=f"{image.environment}/bin", home="/tmp"),
        "workingDirectory": container.working_dir or "/",
        "logBytes": LOG_BYTES,
        **limits(pod, container, place, isolation),
        "sandbox": {
            "root": str(place.pod_folder / "root"),
            "hostname": pod.hostname,
            "hidden": [*home_folder(), *(str(path) for path in config.hidden_paths)],
            "mounts": own + mounts,
            "keep": [*needed_folders(image.environment), os.path.realpath(RESOLVER)],
            "ownProcesses": isolation.own_processes,
            "identity": identity,
        },
    }


def rewritten(
    pod: Pod,
    container: Container,
    *,
    image: Image,
    variables: Mapping[str, str],
    mounts: list[Mount],
    peers: Mapping[str, str],
    place: Place,
    server: str,
    isolation: Isolation,
) -> Launch:
    """Return a launch with everything at its real path; values that name a mount or a peer get the real folder or address.

    Only names that are known when the container starts are replaced. Read-only mounts stay writable.
    """
    everything = place.own_mounts(container) + mounts
    folders = {
        mount["target"]: os.path.join(mount["source"], mount["inner"]).rstrip("/") for mount in everything
    }
    changed = {name: rewrite(value, folders, peers) for name, value in variables.items()}
    changed.setdefault(TERMINATION_LOG, str(place.termination_log))
    if token_folder := folders.get(TOKEN_FOLDER):
        kubeconfig = place.attempt_folder / "kubeconfig"
        kubeconfig.write_text(kubeconfig_for(token_folder, server))
        changed.setdefault("KUBECONFIG", str(kubeconfig))
    home = str(place.temporary)
    return {
        "command": [rewrite(part, folders, peers) for part in command(container, variables)],
        "environment": complete(changed, image_bin=f"{image.environment}/bin", home=home),
        "workingDirectory": rewrite(container.working_dir, folders, {}) or home,
        "logBytes": LOG_BYTES,
        **limits(pod, container, place, isolation),
        "sandbox": None,
    }


class Limits(TypedDict):
    """The part of a launch that says how much it may use."""

    memoryBytes: int
    cgroups: list[Cgroup]


def limits(pod: Pod, container: Container, place: Place, isolation: Isolation) -> Limits:
    """Return how the limits of one attempt are kept: by the kernel if this machine allows it, else by watching."""
    memory = memory_limit(container)
    attempt = f"{pod.uid}-{container.name}-{place.attempt_folder.name}"
    watched = 0 if isolation.cgroups.memory else memory
    return {"memoryBytes": watched, "cgroups": isolation.cgroups.plan(attempt, memory)}


def kubeconfig_for(token_folder: str, server: str) -> str:
    """Return a kubeconfig for a pod that cannot see its service account at the usual path."""
    return f"""apiVersion: v1
kind: Config
clusters: [{{name: local, cluster: {{server: "{server}", certificate-authority: "{token_folder}/ca.crt"}}}}]
users: [{{name: pod, user: {{tokenFile: "{token_folder}/token"}}}}]
contexts: [{{name: pod, context: {{cluster: local, user: pod}}}}]
current-context: pod
"""
