"""The five processes of a local cluster: how each is started, and how to tell that it is healthy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moe_local.api import Endpoint
from moe_local.certificates import SERVICE_ACCOUNTS
from moe_local.folder import ClusterFolder, Network

ETCD, API_SERVER = "etcd", "kube-apiserver"
CONTROLLER_MANAGER, SCHEDULER = "kube-controller-manager", "kube-scheduler"
NODE_AGENT = "node-agent"

CONTROLLERS = (
    "*",
    "-node-ipam-controller",  # pod addresses are loopback addresses that the agent chooses
    "-endpoints-controller",  # these three refuse loopback addresses; the agent resolves Services itself
    "-endpointslice-controller",
    "-endpointslice-mirroring-controller",
)

AUDIT_POLICY = """\
# Logs every write with its user and result, without bodies. Reads, which are most requests, are left out.
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    verbs: [get, list, watch]
  - level: Metadata
"""


@dataclass(frozen=True)
class Part:
    """One process of the cluster."""

    name: str
    argv: tuple[str, ...]
    healthy: Callable[[], bool]
    grace_seconds: float
    """How long it may take to end after SIGTERM."""


def make_parts(folder: ClusterFolder, network: Network) -> tuple[Part, ...]:
    """Return the parts in the order in which they start; they stop in the opposite order.

    The API server has to stop before etcd, because without etcd its graceful stop hangs.
    """
    agent = (sys.executable, "-m", "moe_local.agent", "--config", str(folder.agent_config))
    return (
        Part(ETCD, _etcd(folder, network), _health(folder, network.etcd, "/readyz", "etcd"), 10),
        Part(API_SERVER, _apiserver(folder, network), _health(folder, network.apiserver, "/readyz"), 15),
        Part(
            CONTROLLER_MANAGER,
            _controller_manager(folder, network),
            _health(folder, network.controller_manager, "/healthz"),
            10,
        ),
        Part(SCHEDULER, _scheduler(folder, network), _health(folder, network.scheduler, "/readyz"), 10),
        Part(NODE_AGENT, agent, _health(folder, network.agent, "/healthz", "agent"), 25),
    )


def _health(folder: ClusterFolder, port: int, path: str, door: str = "cluster") -> Callable[[], bool]:
    """Return a health check over TLS, with the client certificate that the part requires."""
    pairs = {"cluster": "admin", "etcd": "apiserver-to-etcd", "agent": "apiserver-to-agent"}
    # The cluster's authority signs the agent's serving certificate; only its clients have an authority of their own.
    authority = "etcd" if door == "etcd" else "cluster"
    endpoint = Endpoint(
        port,
        authority=folder.certificates / f"{authority}-ca.pem",
        pair=folder.certificates / f"{pairs[door]}.pem",
    )
    return lambda: endpoint.healthy(path)


def _etcd(folder: ClusterFolder, network: Network) -> tuple[str, ...]:
    pair, authority = _pem(folder, "etcd"), _pem(folder, "etcd-ca")
    client, peer = f"https://127.0.0.1:{network.etcd}", f"https://127.0.0.1:{network.etcd_peer}"
    return (
        str(folder.programs / "etcd"),
        "--name=moe",
        f"--data-dir={folder.path / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=moe={peer}",
        f"--cert-file={pair}",
        f"--key-file={pair}",
        f"--trusted-ca-file={authority}",
        "--client-cert-auth",
        f"--peer-cert-file={pair}",
        f"--peer-key-file={pair}",
        f"--peer-trusted-ca-file={authority}",
        "--peer-client-cert-auth",
        "--log-level=warn",
    )


def _apiserver(folder: ClusterFolder, network: Network) -> tuple[str, ...]:
    serving, service_accounts = _pem(folder, "apiserver"), str(folder.certificates / SERVICE_ACCOUNTS)
    to_etcd, to_agent = _pem(folder, "apiserver-to-etcd"), _pem(folder, "apiserver-to-agent")
    return (
        str(folder.programs / "kube-apiserver"),
        f"--etcd-servers=https://127.0.0.1:{network.etcd}",
        f"--etcd-cafile={_pem(folder, 'etcd-ca')}",
        f"--etcd-certfile={to_etcd}",
        f"--etcd-keyfile={to_etcd}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={network.apiserver}",
        f"--tls-cert-file={serving}",
        f"--tls-private-key-file={serving}",
        f"--client-ca-file={_pem(folder, 'cluster-ca')}",
        f"--kubelet-client-certificate={to_agent}",
        f"--kubelet-client-key={to_agent}",
        f"--kubelet-certificate-authority={_pem(folder, 'cluster-ca')}",
        "--kubelet-preferred-address-types=InternalIP",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={service_accounts}",
        f"--service-account-signing-key-file={service_accounts}",
        "--endpoint-reconciler-type=none",
        f"--audit-policy-file={folder.audit_policy}",
        f"--audit-log-path={folder.audit_log}",
        "--audit-log-maxsize=50",
        "--audit-log-maxbackup=2",
        "--profiling=false",
    )


def _controller_manager(folder: ClusterFolder, network: Network) -> tuple[str, ...]:
    kubeconfig = folder.kubeconfig("kube-controller-manager")
    return (
        str(folder.programs / "kube-controller-manager"),
        *_component(folder, kubeconfig, network.controller_manager),
        f"--root-ca-file={_pem(folder, 'cluster-ca')}",
        f"--service-account-private-key-file={folder.certificates / SERVICE_ACCOUNTS}",
        "--use-service-account-credentials",
        f"--controllers={','.join(CONTROLLERS)}",
        "--node-monitor-grace-period=30s",
        # Upstream's limit of 20 requests per second is meant for shared control planes; here it would only cause delays.
        "--kube-api-qps=200",
        "--kube-api-burst=300",
    )


def _scheduler(folder: ClusterFolder, network: Network) -> tuple[str, ...]:
    kubeconfig = folder.kubeconfig("kube-scheduler")
    return (str(folder.programs / "kube-scheduler"), *_component(folder, kubeconfig, network.scheduler))


def _component(folder: ClusterFolder, kubeconfig: Path, port: int) -> tuple[str, ...]:
    serving = _pem(folder, "serving")
    return (
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={serving}",
        f"--tls-private-key-file={serving}",
        "--profiling=false",
    )


def _pem(folder: ClusterFolder, name: str) -> str:
    return str(folder.certificates / f"{name}.pem")
