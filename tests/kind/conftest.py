"""A kind cluster by pytest-kind, with our images on it. Skipped, with the reason, where Docker is not."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import pytest_kind.cluster
from pytest_kind import KindCluster

from moe_local.binary import ensure_controlplane

ROOT = Path(__file__).parents[2]
TARGETS = ("operator", "gateway", "trainer")
#: pytest-kind's own default makes a cluster that is too old for the chart. KIND_VERSION overrides it.
KIND_VERSION = os.environ.get("KIND_VERSION", "v0.30.0")


@pytest.fixture(scope="session")
def docker() -> str:
    """The docker program, if it works."""
    program = shutil.which("docker")
    if program is None:
        pytest.skip("kind needs Docker: there is no `docker` on PATH")
    answer = subprocess.run([program, "info"], capture_output=True, text=True)
    if answer.returncode != 0:
        pytest.skip(
            f"kind needs Docker, which does not answer: {(answer.stderr or answer.stdout).strip()[-200:]}"
        )
    return program


@pytest.fixture(scope="session")
def programs(docker: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with kubectl and helm of the small cluster, newer than what pytest-kind would download."""
    folder = tmp_path_factory.mktemp("bin")
    for program in ("kubectl", "helm"):
        (folder / program).symlink_to(ensure_controlplane())
    return folder


@pytest.fixture(scope="session")
def kind(docker: str, programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KindCluster]:
    """A cluster of its own that knows our three images; deleted at the end."""
    pytest_kind.cluster.KIND_VERSION = KIND_VERSION
    found = shutil.which("kind")
    cluster = KindCluster(
        "moe-operator-tests",
        kubeconfig=tmp_path_factory.mktemp("kind") / "kubeconfig",
        kind_path=Path(found) if found else None,
        kubectl_path=programs / "kubectl",
    )
    try:
        cluster.create()
        for target in TARGETS:
            image = f"moe-operator/{target}:{version('moe-operator')}"
            subprocess.run([docker, "build", "--target", target, "--tag", image, str(ROOT)], check=True)
            cluster.load_docker_image(image)
        yield cluster
    finally:
        cluster.delete()
