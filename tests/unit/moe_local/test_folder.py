"""The folder of a cluster: names, ports, pod networks, private files, the lock."""

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from moe_local.errors import LocalClusterError
from moe_local.folder import (
    PORTS,
    ClusterFolder,
    choose_network,
    free_ports,
    port_is_free,
    state_root,
    write_private,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_state_goes_where_the_environment_says_first_ours_then_the_desktops(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("MOE_LOCAL_STATE", raising=False)
    assert state_root() == Path("/home/someone/.local/state/moe-operator")
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert state_root() == Path("/xdg/moe-operator")
    monkeypatch.setenv("MOE_LOCAL_STATE", "/ours")
    assert state_root() == Path("/ours")


@pytest.mark.parametrize("name", ["", "A", "1a", "../x", "a/b", "a" * 41, "a_b", "a\n"])
def test_a_name_that_could_leave_the_root_or_break_a_path_is_refused(name: str):
    with pytest.raises(LocalClusterError, match="cluster name"):
        ClusterFolder.named(name)


def test_folders_are_for_their_owner_only_even_under_a_generous_umask(folder: ClusterFolder):
    before = os.umask(0)
    try:
        folder.make()
    finally:
        os.umask(before)
    assert {mode(path) for path in (folder.path, *folder.path.iterdir())} == {0o700}


def test_private_files_are_0600_and_written_only_when_they_change(tmp_path: Path):
    path = tmp_path / "secret"
    assert write_private(path, "a")
    assert mode(path) == 0o600
    assert not write_private(path, "a")
    assert write_private(path, "b")
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


def test_a_private_file_stays_whole_when_writing_the_next_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "secret"
    write_private(path, "whole")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_private(path, "half")
    assert path.read_text() == "whole"
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


def test_ports_are_different_free_and_below_the_ephemeral_ones():
    ports = free_ports(6)
    assert len(set(ports)) == 6
    assert all(port in PORTS for port in ports)
    assert PORTS.stop <= int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def test_a_port_somebody_listens_on_is_not_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not port_is_free(port)
    assert port_is_free(port)


def test_a_network_is_chosen_once_and_kept(folder: ClusterFolder):
    network = choose_network(folder, rechoose=True)
    assert choose_network(folder, rechoose=True) == network


def test_a_port_that_was_taken_meanwhile_is_chosen_again_but_only_while_nothing_runs(folder: ClusterFolder):
    network = choose_network(folder, rechoose=True)
    with socket.create_server(("127.0.0.1", network.apiserver)):
        assert choose_network(folder, rechoose=False) == network
        again = choose_network(folder, rechoose=True)
    assert again.apiserver != network.apiserver
    assert again.pods == network.pods, "volumes and pods of before keep their addresses"


def test_a_damaged_network_file_is_named_with_the_way_out(folder: ClusterFolder):
    folder.network_file.write_text('{"etcd": "not a port"')
    with pytest.raises(LocalClusterError, match=r"(?s)network\.json is damaged.*remove the folder"):
        choose_network(folder, rechoose=True)


def test_pods_of_clusters_side_by_side_have_networks_of_their_own(folder: ClusterFolder):
    networks = []
    for name in ("first", "second", "third"):
        cluster = ClusterFolder.named(name)
        cluster.make()
        networks.append(choose_network(cluster, rechoose=True).pods)
    assert len(set(networks)) == 3
    assert all(network.is_loopback and not str(network).startswith("127.0.") for network in networks)


def test_whoever_comes_second_is_told_instead_of_waiting(folder: ClusterFolder):
    with folder.locked(), pytest.raises(LocalClusterError, match="another process"), folder.locked():
        pass
    with folder.locked():
        pass


def test_removing_a_cluster_leaves_the_others_alone(folder: ClusterFolder):
    other = ClusterFolder.named("second")
    other.make()
    folder.remove()
    folder.remove()
    assert not folder.path.exists()
    assert other.path.exists()


def test_what_a_pod_has_closed_is_removed_all_the_same():
    # pytest's own folders are closed to the user that tries it: root may enter every folder, so it cannot be root.
    with tempfile.TemporaryDirectory() as top:
        folder = ClusterFolder(Path(top) / "cluster")
        (folder.path / "volume" / "closed" / "deeper").mkdir(parents=True)
        (folder.path / "volume" / "closed" / "link").symlink_to(top)
        (folder.path / "volume" / "closed").chmod(0)
        child = os.fork()
        if child == 0:
            try:
                become_ordinary(Path(top))
                folder.remove()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert Path(top).exists() and not folder.path.exists()


def become_ordinary(top: Path) -> None:
    if os.geteuid() == 0:
        for path in (top, *top.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)
        os.setresuid(65534, 65534, 65534)
