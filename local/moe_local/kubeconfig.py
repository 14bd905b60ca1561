"""Writes the kubeconfig files of a local cluster, in its own folder and never in the user's ~/.kube/config."""

from __future__ import annotations

import yaml

from moe_local.folder import ClusterFolder, Network, write_private

USERS = ("admin", "kube-controller-manager", "kube-scheduler", "agent")
"""The users that get one; each has a pair with that name among the certificates."""


def write_kubeconfigs(folder: ClusterFolder, network: Network) -> bool:
    """Write the kubeconfig of every user; return True if one of them has changed."""
    changed = [write_private(folder.kubeconfig(user), _render(folder, network, user)) for user in USERS]
    return any(changed)


def _render(folder: ClusterFolder, network: Network, user: str) -> str:
    name = f"moe-{folder.name}"
    pair = str(folder.certificates / f"{user}.pem")
    cluster = {
        "server": network.api_url,
        "certificate-authority": str(folder.certificates / "cluster-ca.pem"),
    }
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": user, "user": {"client-certificate": pair, "client-key": pair}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
            "current-context": name,
        },
        sort_keys=False,
    )
