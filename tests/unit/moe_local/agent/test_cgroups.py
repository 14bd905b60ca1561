from __future__ import annotations

import os
from pathlib import Path

import pytest

from moe_local.agent.cgroups import GROUP, MOST_PROCESSES, Cgroups


def test_in_version_2_one_group_has_all_limits_and_dies_as_a_whole() -> None:
    (group,) = Cgroups(Path("/g"), Path("/g")).plan("u-main-1", 1024)
    assert group["folder"] == "/g/u-main-1"
    assert group["settings"] == {
        "memory.max": "1024",
        "memory.oom.group": "1",
        "pids.max": str(MOST_PROCESSES),
    }
    assert group["optional"] == {"memory.swap.max": "0"}


def test_in_version_1_each_resource_has_a_group() -> None:
    memory, pids = Cgroups(Path("/m"), Path("/p"), version=1).plan("a", 1024)
    assert memory["settings"] == {"memory.limit_in_bytes": "1024"}
    assert memory["optional"] == {"memory.memsw.limit_in_bytes": "1024"}
    assert (pids["folder"], pids["settings"]) == ("/p/a", {"pids.max": str(MOST_PROCESSES)})


@pytest.mark.parametrize("version", [1, 2])
def test_without_a_memory_limit_only_processes_are_limited(version: int) -> None:
    groups = Cgroups(Path("/g"), Path("/g"), version).plan("a", 0)
    assert [group["settings"] for group in groups] == [{"pids.max": str(MOST_PROCESSES)}]


def test_where_no_group_can_be_made_nothing_is_planned(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/user.slice/session-1.scope\n4:memory:/x\n")
    found = Cgroups.find(tmp_path / "none", membership)
    assert found.memory is None
    assert found.plan("a", 1024) == []


def test_groups_are_made_beside_the_agents_own_which_processes_are_in(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("memory pids\n")
    own = tmp_path / "user.slice" / "session-1.scope"
    own.mkdir(parents=True)
    membership = tmp_path / "membership"
    membership.write_text("0::/user.slice/session-1.scope\n")
    # The kernel fills every new folder with files; here one that has the trial's name has to be there already.
    beside = own.parent / GROUP
    prepare(beside)
    assert Cgroups.find(tmp_path, membership) == Cgroups(beside, beside)
    assert (beside / "cgroup.subtree_control").read_text() == "+memory +pids"


def prepare(group: Path) -> None:
    trial = group / f"trial-{os.getpid()}"
    trial.mkdir(parents=True)
    (trial / "memory.max").touch()


def test_an_old_empty_group_is_removed_and_a_new_one_left(tmp_path: Path) -> None:
    for name, age in (("old", 3600), ("new", 0)):
        (tmp_path / name).mkdir()
        moment = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (moment, moment))
    Cgroups(tmp_path, tmp_path).sweep()
    assert [folder.name for folder in tmp_path.iterdir()] == ["new"]
