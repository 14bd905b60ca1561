"""Installing the chart: when helm is called, and when the operator counts as ready."""

import copy
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_local import chart
from moe_local.bootstrap import bootstrap_manifests, path_of
from moe_local.chart import CHART, LOCAL_VALUES, chart_digest, install_chart, operator_ready
from moe_local.errors import LocalClusterError
from moe_local.folder import ClusterFolder

READY: dict[str, Any] = {
    "metadata": {"generation": 2},
    "spec": {"replicas": 1},
    "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1},
}


class API:
    """Stands for the API server: what it lists, and what it was asked to delete."""

    def __init__(self, *deployments: dict[str, Any], pods: tuple[dict[str, Any], ...] = ()) -> None:
        self.deployments = list(deployments)
        self.pods = list(pods)
        self.deleted: list[str] = []

    def get(self, path: str) -> dict[str, Any] | None:
        return {"items": self.deployments if "deployments" in path else self.pods}

    def delete_all(self, path: str, selector: str) -> None:
        self.deleted.append(path)


class Helm:
    """Stands for helm: remembers its calls."""

    def __init__(self, returncode: int = 0) -> None:
        self.calls: list[list[str]] = []
        self.returncode = returncode

    def __call__(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        self.calls.append(list(arguments))
        return subprocess.CompletedProcess(
            arguments, self.returncode, "", "Error: values don't meet the schema"
        )


@pytest.fixture
def folder(tmp_path: Path) -> ClusterFolder:
    folder = ClusterFolder(tmp_path / "first")
    folder.make()
    return folder


class Healthy(BaseHTTPRequestHandler):
    """Answers 200 to its readiness probe only."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def healthy_pod() -> Iterator[dict[str, Any]]:
    """A pod whose readiness probe succeeds, as the API server shows it."""
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        container = {
            "ports": [{"name": "health", "containerPort": server.server_port}],
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "health"}},
        }
        yield {"spec": {"containers": [container]}, "status": {"podIP": "127.0.0.1"}}
        server.shutdown()


def test_the_same_chart_with_the_same_values_is_installed_once(folder: ClusterFolder):
    api, helm = API(READY), Helm()
    assert install_chart(folder, api, helm, []) is True
    assert install_chart(folder, api, helm, []) is False
    assert len(helm.calls) == 1


def test_other_values_or_a_deployment_deleted_by_hand_install_it_again(folder: ClusterFolder, tmp_path: Path):
    api, helm = API(READY), Helm()
    install_chart(folder, api, helm, [])
    values = tmp_path / "values.yaml"
    values.write_text("operator: {workers: 2}")
    assert install_chart(folder, api, helm, [values]) is True
    assert helm.calls[-1][-2:] == ["--values", str(values)]
    api.deployments = []
    assert install_chart(folder, api, helm, [values]) is True


def test_a_refusal_is_told_in_helms_words_and_tried_again_next_time(folder: ClusterFolder):
    with pytest.raises(LocalClusterError, match="don't meet the schema"):
        install_chart(folder, API(READY), Helm(returncode=1), [])
    assert not chart.is_installed(folder)


def test_what_a_killed_helm_left_is_cleared_first(folder: ClusterFolder):
    api = API()
    install_chart(folder, api, Helm(), [])
    assert api.deleted == ["/api/v1/namespaces/moe-system/secrets"]


def test_a_missing_values_file_is_named(folder: ClusterFolder, tmp_path: Path):
    with pytest.raises(LocalClusterError, match="nowhere"):
        install_chart(folder, API(), Helm(), [tmp_path / "nowhere.yaml"])


@pytest.mark.parametrize(
    ("field", "value"),
    [("observedGeneration", 1), ("readyReplicas", 0), ("updatedReplicas", 0), ("replicas", 2)],
)
def test_an_operator_that_is_half_rolled_out_is_not_ready(
    healthy_pod: dict[str, Any], field: str, value: int
):
    deployment = copy.deepcopy(READY)
    deployment["status"][field] = value
    assert operator_ready(API(READY, pods=(healthy_pod,))) is True
    assert operator_ready(API(deployment, pods=(healthy_pod,))) is False


def test_an_operator_whose_status_is_of_yesterday_is_not_ready(healthy_pod: dict[str, Any]):
    gone = copy.deepcopy(healthy_pod)
    gone["status"] = {}
    assert operator_ready(API(READY, pods=(gone,))) is False
    assert operator_ready(API(READY)) is False
    assert operator_ready(API()) is False


def test_the_digest_follows_the_chart(tmp_path: Path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "a.yaml").write_text("a")
    before = chart_digest(tmp_path, [])
    (tmp_path / "templates" / "a.yaml").write_text("b")
    assert chart_digest(tmp_path, []) != before


def test_local_values_set_only_keys_that_the_chart_has():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    ours = yaml.safe_load(LOCAL_VALUES.read_text())
    assert set(ours) <= set(values)
    assert set(ours["profiles"]) <= set(values["profiles"])


def test_every_bootstrap_manifest_has_a_place_to_be_applied_at():
    paths = [path_of(manifest) for manifest in bootstrap_manifests()]
    assert len(set(paths)) == len(paths) == 4
