"""What `moectl local` prints and exits with, without a cluster."""

import contextlib
import io
import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from moe_client.cli.local import _interruptible_once, app
from moe_local.cluster import LocalCluster
from moe_local.errors import LocalClusterError
from moe_local.processes import Process
from moe_local.status import ClusterStatus, PartStatus

RUNNING = Process("boot", 1, 1)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOE_LOCAL_STATE", str(tmp_path))
    return tmp_path


def status_of(*parts: PartStatus, node: bool = True, operator: bool | None = True) -> ClusterStatus:
    return ClusterStatus(parts, node_ready=node, operator_ready=operator)


@pytest.mark.parametrize(
    ("status", "well"),
    [
        (status_of(PartStatus("etcd", RUNNING, True)), True),
        (status_of(PartStatus("etcd", RUNNING, True), operator=None), True),
        (status_of(PartStatus("etcd", RUNNING, False)), False),
        (status_of(PartStatus("etcd", None, False)), False),
        (status_of(PartStatus("etcd", RUNNING, True), node=False), False),
        (status_of(PartStatus("etcd", RUNNING, True), operator=False), False),
        (status_of(), False),
    ],
    ids=["well", "never had an operator", "unhealthy", "stopped", "node lost", "operator lost", "never up"],
)
@pytest.mark.parametrize("output", ["table", "json"])
def test_status_exits_with_0_only_if_all_is_well(
    monkeypatch: pytest.MonkeyPatch, status: ClusterStatus, well: bool, output: str
):
    monkeypatch.setattr(LocalCluster, "status", lambda self: status)
    result = CliRunner().invoke(app, ["status", "-o", output])
    assert result.exit_code == (0 if well else 1)
    if output == "json":
        assert json.loads(result.stdout)["well"] is well
    else:
        assert ("moectl local up" in result.stdout) is not well


def test_a_cluster_that_was_never_up_has_no_environment():
    result = CliRunner().invoke(app, ["env", "--name", "nowhere"])
    assert result.exit_code == 1
    assert "moectl local up --name nowhere" in str(result.output)


def test_an_image_without_an_environment_is_refused_before_anything_starts(state: Path):
    result = CliRunner().invoke(app, ["up", "--image", "moe-operator/trainer"])
    assert result.exit_code == 1
    assert "give IMAGE=FOLDER" in result.output
    assert list(state.iterdir()) == []


def test_an_image_stands_for_the_environment_it_was_given(state: Path, monkeypatch: pytest.MonkeyPatch):
    (state / "other" / "bin").mkdir(parents=True)
    seen = SimpleNamespace()
    monkeypatch.setattr(LocalCluster, "up", lambda self, **options: seen.__dict__.update(options))
    result = CliRunner().invoke(
        app, ["up", "--no-operator", "--image", f"moe-operator/trainer={state / 'other'}"]
    )
    assert result.exit_code == 0, result.output
    assert seen.images == {"moe-operator/trainer": state / "other"}
    assert seen.operator is False


def test_an_error_of_the_cluster_is_told_with_its_fix_and_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
):
    def fail(self: LocalCluster, **options: object) -> None:
        raise LocalClusterError("no room", fix="make some")

    monkeypatch.setattr(LocalCluster, "down", fail)
    result = CliRunner().invoke(app, ["down"])
    assert result.exit_code == 1
    assert "no room" in result.output and "to fix: make some" in result.output
    assert "Traceback" not in result.output


def test_a_full_disk_is_told_with_the_file_and_without_a_traceback(monkeypatch: pytest.MonkeyPatch):
    def fail(self: LocalCluster, **options: object) -> None:
        raise OSError(28, "No space left on device", "/state/moe/network.json")

    monkeypatch.setattr(LocalCluster, "up", fail)
    result = CliRunner().invoke(app, ["up"])
    assert result.exit_code == 1
    assert "No space left on device: '/state/moe/network.json'" in result.output
    assert "Traceback" not in result.output


def test_a_wrong_name_is_told_with_the_rule():
    result = CliRunner().invoke(app, ["down", "--name", "../etc"])
    assert result.exit_code == 1
    assert "use a lower-case letter" in result.output


def test_an_interrupt_that_was_lost_in_a_destructor_is_noticed_at_the_next_step() -> None:
    with pytest.raises(KeyboardInterrupt), _interruptible_once(Console(file=io.StringIO())) as check:
        check()
        with contextlib.suppress(KeyboardInterrupt):  # as Python does where an object is being destroyed
            signal.raise_signal(signal.SIGTERM)
        check()
