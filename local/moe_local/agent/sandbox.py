"""What a container is started with: its command and files, isolated or, if this machine does not allow that, rewritten."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_local.agent.config import AgentConfig, Image
from moe_local.agent.environment import ConfigurationError, command, complete, rewrite
from moe_local.agent.launch import Launch, Mount
from moe_local.agent.pod import Container, Pod
from moe_local.agent.processes import LOG_BYTES, PYTHON

ISOLATION = Path(__file__).with_name("isolation.py")
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
TERMINATION_LOG = "MOE_TERMINATION_LOG"
"""Names the file for the termination message of our own containers; needed if paths are rewritten."""


def why_not_isolated() -> str:
    """Try a mount namespace on this machine; return '' if it works, else what was refused."""
    trial = subprocess.run([*PYTHON, str(ISOLATION)], capture_output=True, text=True, timeout=30, check=False)
    lines = (trial.stdout + trial.stderr).strip().splitlines()
    return "" if trial.returncode == 0 else (lines[-1] if lines else f"exit status {trial.returncode}")


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


@dataclass(frozen=True)
class Place:
    """The folders of one attempt of a container."""

    pod_folder: Path
    attempt_folder: Path

    def make(self) -> None:
        """Create what the container's own mounts show."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.termination_log.touch()
        self.resolver.write_text("multi on\n")

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

    def own_mounts(self, container: Container) -> list[Mount]:
        """Return the mounts that every container has."""
        return [
            {"source": str(self.temporary), "target": "/tmp", "readOnly": False},
            {"source": str(self.hosts), "target": "/etc/hosts", "readOnly": False},
            {"source": str(self.resolver), "target": "/etc/host.conf", "readOnly": True},
            {
                "source": str(self.termination_log),
                "target": container.termination_message_path,
                "readOnly": False,
            },
        ]


def isolated(
    pod: Pod,
    container: Container,
    *,
    image: Image,
    variables: Mapping[str, str],
    mounts: list[Mount],
    place: Place,
    config: AgentConfig,
) -> Launch:
    """Return a launch with everything at the paths that the pod asks for."""
    targets = {mount["target"] for mount in mounts}
    own = [mount for mount in place.own_mounts(container) if mount["target"] not in targets]
    return {
        "command": command(container, variables),
        "environment": complete(variables, image_bin=f"{image.environment}/bin", home="/tmp"),
        "workingDirectory": container.working_dir or "/",
        "logBytes": LOG_BYTES,
        "sandbox": {
            "root": str(place.pod_folder / "root"),
            "hostname": pod.hostname,
            "hidden": [str(path) for path in config.hidden_paths],
            "mounts": own + mounts,
            "keep": list(needed_folders(image.environment)),
        },
    }


def rewritten(
    container: Container,
    *,
    image: Image,
    variables: Mapping[str, str],
    mounts: list[Mount],
    peers: Mapping[str, str],
    place: Place,
    server: str,
) -> Launch:
    """Return a launch with everything at its real path; values that name a mount or a peer get the real folder or address.

    Only names that are known when the container starts are replaced. Read-only mounts stay writable.
    """
    folders = {mount["target"]: mount["source"] for mount in place.own_mounts(container) + mounts}
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
        "sandbox": None,
    }


def kubeconfig_for(token_folder: str, server: str) -> str:
    """Return a kubeconfig for a pod that cannot see its service account at the usual path."""
    return f"""apiVersion: v1
kind: Config
clusters: [{{name: local, cluster: {{server: "{server}", certificate-authority: "{token_folder}/ca.crt"}}}}]
users: [{{name: pod, user: {{tokenFile: "{token_folder}/token"}}}}]
contexts: [{{name: pod, context: {{cluster: local, user: pod}}}}]
current-context: pod
"""
