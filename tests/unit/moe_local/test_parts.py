"""How the parts are started: nothing listens off this machine, nothing speaks without TLS."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest
import yaml

from moe_local.folder import ClusterFolder, Network
from moe_local.kubeconfig import USERS, write_kubeconfigs
from moe_local.parts import AUDIT_POLICY, Part, make_parts

NETWORK = Network(
    etcd=1,
    etcd_peer=2,
    apiserver=3,
    controller_manager=4,
    scheduler=5,
    agent=6,
    pods=IPv4Network("127.77.0.0/24"),
)


@pytest.fixture
def folder(tmp_path: Path) -> ClusterFolder:
    folder = ClusterFolder(tmp_path / "first")
    folder.make()
    return folder


@pytest.fixture
def parts(folder: ClusterFolder) -> tuple[Part, ...]:
    return make_parts(folder, NETWORK)


def test_the_api_server_stops_before_etcd_and_the_agent_first(parts: tuple[Part, ...]):
    stopped = [part.name for part in reversed(parts)]
    assert stopped[0] == "node-agent"
    assert stopped[-2:] == ["kube-apiserver", "etcd"]


def test_no_part_is_told_to_speak_plain_http(parts: tuple[Part, ...]):
    assert not [argument for part in parts for argument in part.argv if "http://" in argument]


def test_every_address_is_loopback(parts: tuple[Part, ...]):
    for part in parts:
        for argument in part.argv:
            if "-address=" in argument or "-urls=" in argument:
                assert "127.0.0.1" in argument
    kubernetes = [part for part in parts if part.name.startswith("kube-")]
    assert all("--bind-address=127.0.0.1" in part.argv for part in kubernetes)


def test_etcd_wants_a_client_certificate_on_both_of_its_ports(parts: tuple[Part, ...]):
    etcd = parts[0]
    assert "--client-cert-auth" in etcd.argv
    assert "--peer-client-cert-auth" in etcd.argv
    assert any(argument.endswith("/etcd-ca.pem") for argument in etcd.argv)


def test_no_secret_is_among_the_arguments_that_everybody_can_read(parts: tuple[Part, ...]):
    assert not [
        argument for part in parts for argument in part.argv if "PRIVATE" in argument or "token=" in argument
    ]


def test_the_audit_log_has_every_write_and_no_body():
    first, last = yaml.safe_load(AUDIT_POLICY)["rules"]
    assert first == {"level": "None", "verbs": ["get", "list", "watch"]}
    assert last == {"level": "Metadata"}


@pytest.mark.parametrize("user", USERS)
def test_a_kubeconfig_names_this_cluster_and_a_pair_of_its_user(folder: ClusterFolder, user: str):
    assert write_kubeconfigs(folder, NETWORK) is True
    assert write_kubeconfigs(folder, NETWORK) is False
    config = yaml.safe_load(folder.kubeconfig(user).read_text())
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:3"
    assert config["users"][0]["user"]["client-key"] == str(folder.certificates / f"{user}.pem")
    assert folder.kubeconfig(user).stat().st_mode & 0o777 == 0o600
