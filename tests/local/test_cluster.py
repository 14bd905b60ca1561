"""A real control plane: started, repaired, interrupted and stopped, with everything in one private folder."""

import json
import os
import signal
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from moe_local.cluster import LocalCluster
from moe_local.errors import LocalClusterError
from moe_local.folder import load_network

CONTROL_PLANE = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
#: Seconds after which a test gives up. On a machine that is busy with other things everything comes late.
PATIENCE = 90.0
MOECTL = str(Path(sys.executable).with_name("moectl"))


@pytest.fixture(scope="module")
def cluster(state_root: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster("first")
    cluster.up(node=False)
    yield cluster
    cluster.down(delete=True)


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_every_part_runs_and_is_healthy(cluster: LocalCluster):
    assert list(cluster.part_pids()) == CONTROL_PLANE
    parts = {part.name: part for part in cluster.status().parts}
    assert all(parts[name].healthy for name in CONTROL_PLANE)
    assert all(part.process.rss_bytes > 1 << 20 for part in parts.values() if part.process)


def test_up_again_keeps_what_runs(cluster: LocalCluster):
    before = cluster.part_pids()
    cluster.up(node=False)
    assert cluster.part_pids() == before


@pytest.mark.parametrize("part", CONTROL_PLANE)
def test_a_part_that_was_killed_comes_back_alone_with_all_data(cluster: LocalCluster, part: str):
    cluster.kubectl("create", "configmap", f"before-{part}", "--from-literal=a=b")
    before = cluster.part_pids()
    cluster.kill(part)
    assert part not in cluster.part_pids()
    assert not cluster.status().well
    cluster.up(node=False)
    after = cluster.part_pids()
    assert {name for name in after if after[name] != before[name]} == {part}
    assert cluster.kubectl("get", "configmap", f"before-{part}", "-o", "jsonpath={.data.a}").stdout == "b"


def test_a_part_that_hangs_is_started_again(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch):
    before = cluster.part_pids()
    os.kill(before["kube-scheduler"], signal.SIGSTOP)
    monkeypatch.setattr("moe_local.cluster.STUCK_SECONDS", 0.5)
    cluster.up(node=False)
    after = cluster.part_pids()
    assert {name for name in after if after[name] != before[name]} == {"kube-scheduler"}


def test_everything_killed_at_once_comes_back_with_all_data(cluster: LocalCluster):
    cluster.kubectl("create", "configmap", "before-all", "--from-literal=a=b")
    for part in cluster.part_pids():
        cluster.kill(part)
    cluster.up(node=False)
    assert list(cluster.part_pids()) == CONTROL_PLANE
    assert cluster.kubectl("get", "configmap", "before-all", "-o", "jsonpath={.data.a}").stdout == "b"


def test_a_part_started_with_other_arguments_is_started_again(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
):
    """As after an upgrade of this package."""
    before = cluster.part_pids()
    monkeypatch.setattr("moe_local.parts.CONTROLLERS", ("*",))
    cluster.up(node=False)
    monkeypatch.undo()
    after = cluster.part_pids()
    assert {name for name in after if after[name] != before[name]} == {"kube-controller-manager"}
    cluster.up(node=False)


def test_controllers_act_so_that_a_job_gets_its_pod(cluster: LocalCluster):
    cluster.kubectl("create", "job", "hello", "--image=moe-operator/trainer", "--", "true")
    wait_for(
        lambda: cluster.kubectl("get", "pods", "-l", "job-name=hello", "-o", "name").stdout,
        "the job controller made no pod",
    )


def test_everything_in_the_folder_is_for_its_owner_only(cluster: LocalCluster):
    for path in (cluster.folder.path, *cluster.folder.path.rglob("*")):
        if not path.is_symlink():
            private = stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
            inside = any(stat.S_IMODE(parent.stat().st_mode) == 0o700 for parent in path.parents)
            assert private or inside, f"{path} can be read by others"
    for secret in ("certificates/admin.pem", "kubeconfig/admin", "log/audit.jsonl"):
        assert stat.S_IMODE((cluster.folder.path / secret).stat().st_mode) == 0o600


def trusting(authority: Path, pair: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    if pair:
        context.load_cert_chain(str(pair))
    return context


@pytest.mark.parametrize("pair", [None, "admin.pem", "apiserver-to-agent.pem"])
def test_etcd_answers_nobody_but_the_api_server(cluster: LocalCluster, pair: str | None):
    certificates = cluster.folder.certificates
    port = load_network(cluster.folder).etcd

    def ask(name: str | None) -> int:
        context = trusting(certificates / "etcd-ca.pem", certificates / name if name else None)
        connection = HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)
        try:
            connection.request("GET", "/version")
            return connection.getresponse().status
        finally:
            connection.close()

    with pytest.raises(OSError, match=r"(?i)alert|reset|eof|certificate|closed"):
        ask(pair)
    assert ask("apiserver-to-etcd.pem") == 200


def test_the_api_server_answers_nobody_without_a_name(cluster: LocalCluster):
    certificates = cluster.folder.certificates
    context = trusting(certificates / "cluster-ca.pem", None)
    connection = HTTPSConnection(
        "127.0.0.1", load_network(cluster.folder).apiserver, timeout=PATIENCE, context=context
    )
    connection.request("GET", "/api")
    assert connection.getresponse().status == 401
    connection.close()


def test_nothing_listens_beyond_this_machine(cluster: LocalCluster):
    pids = set(cluster.part_pids().values())
    import psutil

    listening = [
        connection.laddr.ip
        for pid in pids
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening and set(listening) == {"127.0.0.1"}


def test_the_audit_log_counts_writes_and_keeps_no_bodies(cluster: LocalCluster):
    cluster.kubectl("create", "secret", "generic", "audited", "--from-literal=password=correct-horse")

    def written() -> list[dict[str, object]]:
        lines = cluster.folder.audit_log.read_text().splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in events if event["objectRef"].get("name") == "audited"]

    wait_for(written, "the write is not in the audit log")
    (event,) = written()
    assert event["verb"] == "create"
    assert event["user"]["username"] == "moe-local-admin"
    assert "correct-horse" not in cluster.folder.audit_log.read_text()
    assert '"verb":"get"' not in cluster.folder.audit_log.read_text()


def test_two_clusters_live_side_by_side_and_share_nothing(cluster: LocalCluster):
    second = LocalCluster("second")
    try:
        second.up(node=False)
        assert not set(second.part_pids().values()) & set(cluster.part_pids().values())
        second.kubectl("create", "configmap", "only-here", "--from-literal=a=b")
        assert cluster.kubectl("get", "configmap", "only-here", check=False).returncode == 1
        assert load_network(second.folder).pods != load_network(cluster.folder).pods
        crossed = second.kubectl(
            "--kubeconfig", str(second.kubeconfig), "--server", _server(cluster), "get", "ns", check=False
        )
        assert crossed.returncode != 0, "the keys of one cluster open the other"
    finally:
        second.down(delete=True)
    assert list(cluster.part_pids()) == CONTROL_PLANE


def _server(cluster: LocalCluster) -> str:
    return load_network(cluster.folder).api_url


def test_a_second_up_or_down_at_the_same_time_is_told_to_wait(cluster: LocalCluster):
    with cluster.folder.locked():
        for act in (cluster.up, cluster.down):
            with pytest.raises(LocalClusterError, match="another process"):
                act()


def moectl(home: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "HOME": str(home),
        "XDG_CACHE_HOME": _user_cache(),
        "KUBECONFIG": str(home / "mine"),
    }
    return subprocess.Popen(
        [MOECTL, "local", *arguments],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _user_cache() -> str:
    return os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")


@pytest.mark.parametrize(
    ("number", "impatient"), [(signal.SIGINT, True), (signal.SIGTERM, False)], ids=["Ctrl-C twice", "SIGTERM"]
)
def test_an_interrupted_up_stops_what_it_started_and_the_next_one_works(
    state_root: Path, tmp_path: Path, number: signal.Signals, impatient: bool
):
    cluster = LocalCluster("interrupted")
    up = moectl(tmp_path, "up", "--name", "interrupted", "--no-operator")
    wait_for(lambda: "kube-apiserver" in cluster.part_pids(), "the API server was not started")
    up.send_signal(number)
    if impatient:
        wait_for(
            lambda: "interrupted" in (up.stdout.readline() if up.stdout else ""), "moectl did not notice"
        )
        up.send_signal(number)
    output, _ = up.communicate(timeout=PATIENCE)
    # The second signal may also meet a moectl that has stopped everything and is just about to end.
    assert up.returncode in ((130, -number) if impatient else (130,)), output
    assert cluster.part_pids() == {}
    cluster.up(node=False)
    assert list(cluster.part_pids()) == CONTROL_PLANE
    cluster.down(delete=True)


def test_an_interrupted_repair_leaves_what_ran_before(cluster: LocalCluster, tmp_path: Path):
    before = cluster.part_pids()
    cluster.kill("kube-scheduler")
    (cluster.folder.path / "bin" / "kube-scheduler").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moe_local.configuration.PROGRAMS", ())  # so that up does not put it back
        with pytest.raises(LocalClusterError, match="kube-scheduler ended"):
            cluster.up(node=False)
    after = cluster.part_pids()
    assert after == {name: pid for name, pid in before.items() if name != "kube-scheduler"}
    cluster.up(node=False)


def test_down_keeps_data_is_fine_twice_and_the_home_folder_is_never_touched(state_root: Path, tmp_path: Path):
    cluster = LocalCluster("kept")
    cluster.up(node=False)
    cluster.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    for _ in range(2):
        down = moectl(tmp_path, "down", "--name", "kept")
        output, _ = down.communicate(timeout=PATIENCE)
        assert down.returncode == 0, output
        assert cluster.part_pids() == {}
    status = moectl(tmp_path, "status", "--name", "kept", "-o", "json")
    report = json.loads(status.communicate(timeout=PATIENCE)[0])
    assert status.returncode == 1
    assert not report["well"] and not any(part["healthy"] for part in report["parts"])
    cluster.up(node=False)
    assert cluster.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}").stdout == "b"
    cluster.down(delete=True)
    cluster.down(delete=True)
    assert not cluster.folder.path.exists()
    assert list(tmp_path.iterdir()) == [], "moectl wrote into the home folder"


def test_env_prints_what_a_shell_needs(cluster: LocalCluster, tmp_path: Path):
    answer = subprocess.run(
        [
            "bash",
            "-c",
            f'eval "$({MOECTL} local env --name first)" && kubectl get namespace moe-system -o name',
        ],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout.strip() == "namespace/moe-system", answer.stderr
    assert list(tmp_path.iterdir()) == []
