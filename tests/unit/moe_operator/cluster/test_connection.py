import base64
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
import yaml
from kubernetes.config import ConfigException

from moe_operator.cluster.connection import SERVICE_ACCOUNT_VARIABLE, load_connection


class Clock:
    """A clock that is moved by hand, in the place of the class `datetime`."""

    def __init__(self):
        self.time = datetime(2026, 1, 1)

    def now(self):
        return self.time


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No cluster, unless a test says where."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(SERVICE_ACCOUNT_VARIABLE, str(tmp_path))


def mount_token(folder, token):
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_text("an authority")


def test_in_a_cluster_the_token_of_the_pod_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    mount_token(tmp_path, "one\n")
    connection = load_connection()
    assert connection.server == "https://127.0.0.1:6443"
    assert connection.authorization() == "Bearer one"
    assert connection.for_kopf().as_http_headers() == {"Authorization": "Bearer one"}


def test_a_rotated_token_is_read_again(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    mount_token(tmp_path, "one")
    clock = Clock()
    datetimes = SimpleNamespace(datetime=clock, timedelta=timedelta)
    monkeypatch.setattr("kubernetes.config.incluster_config.datetime", datetimes)
    connection = load_connection()
    mount_token(tmp_path, "two")
    assert connection.authorization() == "Bearer one", "within a minute the file is not read again"
    clock.time += timedelta(minutes=2)
    assert connection.authorization() == "Bearer two"


def test_elsewhere_the_kubeconfig_says_where(monkeypatch, tmp_path):
    certificate = base64.b64encode(b"certificate").decode()
    config = {
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:7443/"}}],
        "users": [
            {"name": "u", "user": {"client-certificate-data": certificate, "client-key-data": certificate}}
        ],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig")
    )
    connection = load_connection()
    assert connection.server == "https://127.0.0.1:7443"
    assert connection.authorization() is None
    assert connection.configuration.cert_file


def test_nowhere_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "absent")
    )
    with pytest.raises(ConfigException):
        load_connection()
