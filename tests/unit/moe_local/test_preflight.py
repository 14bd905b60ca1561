"""What a machine must have, told with what to do where it has not."""

from dataclasses import replace
from pathlib import Path

import pytest

from moe_local.errors import LocalClusterError
from moe_local.preflight import GIB, Machine, judge, measure, require_fit

GOOD = Machine(
    platform="linux",
    python=(3, 11),
    free_disk_bytes=50 * GIB,
    available_memory_bytes=8 * GIB,
    lacks=(),
    must_build=True,
)


def test_nothing_is_found_on_a_machine_that_has_everything():
    assert judge(GOOD) == []


@pytest.mark.parametrize(
    ("change", "word", "fatal"),
    [
        ({"platform": "darwin"}, "darwin", True),
        ({"python": (3, 10)}, "3.10", True),
        ({"free_disk_bytes": 5 * GIB}, "5.0 GiB of disk", True),
        ({"available_memory_bytes": GIB // 2}, "0.5 GiB of memory", False),
        ({"lacks": ("pods run as root",)}, "pods run as root", False),
    ],
)
def test_each_lack_is_named_with_what_was_measured_and_a_way_out(change, word, fatal):
    (finding,) = judge(replace(GOOD, **change))
    assert word in finding.message
    assert finding.fatal is fatal
    assert finding.fix


def test_less_disk_is_enough_where_nothing_has_to_be_built():
    assert judge(replace(GOOD, free_disk_bytes=5 * GIB, must_build=False)) == []


def test_the_fatal_comes_first():
    findings = judge(replace(GOOD, lacks=("pods run as root",), platform="win32"))
    assert [finding.fatal for finding in findings] == [True, False]


def test_this_machine_is_measured_before_its_folder_exists(tmp_path: Path):
    machine = measure(tmp_path / "not" / "there", must_build=False)
    assert machine.free_disk_bytes > 0
    assert machine.available_memory_bytes > 0


def test_a_fatal_finding_stops_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("moe_local.preflight.NEEDED_DISK_BYTES", 1 << 62)
    with pytest.raises(LocalClusterError, match="GiB of disk are free"):
        require_fit(tmp_path / "cluster", must_build=False)
    assert list(tmp_path.iterdir()) == []
