"""Writes everything that the parts of a cluster read, before any of them starts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from moe_local.agent.config import AgentConfig, BackOff, Image
from moe_local.binary import PROGRAMS
from moe_local.certificates import NODE_NAME, ensure_certificates
from moe_local.folder import ClusterFolder, Network, write_private
from moe_local.kubeconfig import write_kubeconfigs
from moe_local.parts import AUDIT_POLICY

IMAGES = ("moe-operator/operator", "moe-operator/gateway", "moe-operator/trainer")


def configure(folder: ClusterFolder, network: Network, binary: Path, images: Mapping[str, Path]) -> bool:
    """Write what is missing or has changed; return True if the node agent has to be restarted to notice it.

    `images` are environments by image name, in addition to those of this project or replacing them.
    """
    ensure_certificates(folder.certificates)
    write_kubeconfigs(folder, network)
    write_private(folder.audit_policy, AUDIT_POLICY)
    for program in PROGRAMS:
        _link(folder.programs / program, binary)
    agent = _agent_config(folder, network, images)
    return write_private(folder.agent_config, agent.model_dump_json(indent=2, by_alias=True))


def _agent_config(folder: ClusterFolder, network: Network, images: Mapping[str, Path]) -> AgentConfig:
    environments = {**dict.fromkeys(IMAGES, Path(sys.prefix)), **images}
    return AgentConfig(
        node_name=NODE_NAME,
        kubeconfig=folder.kubeconfig("agent"),
        state_dir=folder.path / "agent",
        listen_port=network.agent,
        serving_certificate=folder.certificates / "agent-serving.pem",
        serving_key=folder.certificates / "agent-serving.pem",
        client_ca=folder.certificates / "agent-ca.pem",
        images={name: Image(environment=path.absolute()) for name, path in environments.items()},
        pod_network=network.pods,
        hidden_paths=(
            folder.path.parent,
        ),  # it contains the keys of every cluster; a pod's own volumes are mounted nevertheless
        # Somebody is watching, so a program that crashed because its peer was not there yet is restarted soon.
        back_off=BackOff(initial=2, maximum=60),
    )


def _link(link: Path, target: Path) -> None:
    if not link.is_symlink() or link.readlink() != target:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
