"""A whole small cluster, node and operator included: faults that leave pods running, and what stopping leaves."""

import os
import ssl
import subprocess
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from moe_local import chart
from moe_local.cluster import LocalCluster
from moe_local.containers import find_supervisors
from moe_local.folder import load_network
from moe_local.processes import Process


@pytest.fixture(scope="module")
def cluster(state_root: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster("whole")
    cluster.up()
    yield cluster
    cluster.down(delete=True)


def containers(cluster: LocalCluster) -> set[int]:
    """Pids of the supervisors of all containers that run."""
    return {process.pid for process in find_supervisors(cluster.folder.path / "agent")}


def test_all_of_it_is_well_and_the_operator_runs_as_a_pod(cluster: LocalCluster):
    assert cluster.status().well
    assert len(containers(cluster)) == 1


@pytest.mark.parametrize("pair", [None, "admin.pem", "apiserver-to-etcd.pem"])
def test_the_agent_answers_nobody_but_the_api_server(cluster: LocalCluster, pair: str | None):
    certificates = cluster.folder.certificates
    context = ssl.create_default_context(cafile=str(certificates / "cluster-ca.pem"))
    if pair:
        context.load_cert_chain(str(certificates / pair))
    port = load_network(cluster.folder).agent
    connection = HTTPSConnection("127.0.0.1", port, timeout=90, context=context)
    with pytest.raises(OSError, match=r"(?i)alert|reset|eof|certificate|closed"):
        connection.request("GET", "/healthz")
        connection.getresponse()
    connection.close()


def test_up_again_touches_neither_the_release_nor_a_pod(cluster: LocalCluster):
    before = (cluster.part_pids(), containers(cluster))
    cluster.up()
    assert (cluster.part_pids(), containers(cluster)) == before
    releases = cluster.kubectl(
        "get", "secrets", "-n", chart.NAMESPACE, "-l", "owner=helm", "-o", "name"
    ).stdout
    assert len(releases.split()) == 1


def test_pods_outlive_a_killed_agent_and_the_next_one_adopts_them(cluster: LocalCluster):
    before = containers(cluster)
    cluster.kill("node-agent")
    assert containers(cluster) == before
    assert not cluster.node_ready()
    cluster.up()
    assert containers(cluster) == before
    assert cluster.status().well


def test_a_killed_api_server_does_not_disturb_pods(cluster: LocalCluster):
    before = containers(cluster)
    cluster.kill("kube-apiserver")
    cluster.up()
    assert containers(cluster) == before


def test_an_installation_that_was_killed_half_way_is_finished_by_the_next_up(cluster: LocalCluster):
    (cluster.folder.path / "chart.digest").unlink()
    kill_helm_when_pending(cluster)
    upgrade = [
        str(cluster.folder.programs / "helm"),
        "upgrade",
        chart.RELEASE,
        str(chart.CHART),
        "-n",
        chart.NAMESPACE,
    ]
    refused = subprocess.run(
        upgrade, env={**os.environ, **cluster.variables()}, capture_output=True, text=True, check=False
    )
    assert "in progress" in refused.stderr, "the fault is not there: this test would prove nothing"
    cluster.up()
    assert cluster.status().well


def kill_helm_when_pending(cluster: LocalCluster) -> None:
    """Start an upgrade and kill it once its release is stored but not done, as it is while it waits for the new pod."""
    helm = subprocess.Popen(
        [
            str(cluster.folder.programs / "helm"),
            *(
                "upgrade",
                chart.RELEASE,
                str(chart.CHART),
                "-n",
                chart.NAMESPACE,
                "--wait",
                "--set",
                "operator.workers=3",
            ),
        ],
        env={**os.environ, **cluster.variables()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    secrets = f"/api/v1/namespaces/{chart.NAMESPACE}/secrets?labelSelector={chart.PENDING}"
    api = cluster.api()
    while helm.poll() is None:
        listing = api.get(secrets)
        if listing and listing["items"]:
            helm.kill()
    helm.wait()


def test_stopping_without_an_agent_leaves_no_container_and_all_of_it_comes_back(cluster: LocalCluster):
    supervisors = find_supervisors(cluster.folder.path / "agent")
    programs = [child for supervisor in supervisors for child in supervisor.children(recursive=True)]
    assert programs
    cluster.kill("node-agent")
    cluster.down()
    assert containers(cluster) == set()
    assert not [program for program in programs if program.is_running()]
    assert not any(Process.recorded(record) for record in (cluster.folder.path / "run").iterdir())
    cluster.up()
    assert cluster.status().well
