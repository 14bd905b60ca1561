"""Background processes: recorded before they are programs, never mistaken for another one with their pid."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from moe_local.containers import find_supervisors, stop_containers
from moe_local.processes import Process, start

SLEEP = ("/bin/sleep", "600")
STUBBORN = (
    sys.executable,
    "-Sc",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
)


def run(tmp_path: Path, argv: tuple[str, ...]) -> Process:
    return start(
        argv,
        record=tmp_path / "record",
        log=tmp_path / "log",
        environment={"PATH": os.defpath},
        folder=tmp_path,
    )


def wait_for_text(path: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while text not in path.read_text():
        assert time.monotonic() < deadline, f"{path} never said {text!r}"
        time.sleep(0.01)


def test_a_process_is_known_by_its_record_until_it_ends(tmp_path: Path):
    process = run(tmp_path, SLEEP)
    assert Process.recorded(tmp_path / "record") == process
    assert process.arguments == SLEEP
    assert os.getsid(process.pid) == process.pid, "Ctrl-C in the terminal must not reach it"
    assert process.stop(grace=60) is True
    assert Process.recorded(tmp_path / "record") is None


def test_what_ignores_the_request_is_killed_after_its_grace(tmp_path: Path):
    process = run(tmp_path, STUBBORN)
    wait_for_text(tmp_path / "log", "up")
    assert process.stop(grace=0.1) is False
    assert not process.runs()


@pytest.mark.parametrize("changed", ["boot", "start_ticks"])
def test_a_process_that_got_the_pid_later_is_neither_believed_nor_killed(tmp_path: Path, changed: str):
    process = run(tmp_path, SLEEP)
    boot, pid, ticks = (tmp_path / "record").read_text().split()
    other = {"boot": f"other {pid} {ticks}", "start_ticks": f"{boot} {pid} {int(ticks) + 1}"}[changed]
    (tmp_path / "record").write_text(other)
    assert Process.recorded(tmp_path / "record") is None
    Process("other" if changed == "boot" else boot, int(pid), int(ticks) + (changed != "boot")).send(
        signal.SIGKILL
    )
    assert process.runs()
    process.stop(grace=60)


@pytest.mark.parametrize("text", ["", "half a rec", "boot one two"])
def test_a_damaged_record_is_nobody(tmp_path: Path, text: str):
    (tmp_path / "record").write_text(text)
    assert Process.recorded(tmp_path / "record") is None


def test_a_program_that_is_not_there_is_seen_as_ended_with_the_shells_words(tmp_path: Path):
    process = run(tmp_path, ("/nowhere/program",))
    assert process.wait(60)
    assert "/nowhere/program" in (tmp_path / "log").read_text()


def test_containers_that_lost_their_agent_are_found_by_their_folder_and_stopped(tmp_path: Path):
    """A supervisor is known by its arguments only, so one that does nothing else will do here."""
    shim = tmp_path / "shim.py"
    shim.write_text("import time\ntime.sleep(600)\n")
    ours, others = tmp_path / "agent", tmp_path / "agent-of-another"
    for number, folder in enumerate((ours, others)):
        (tmp_path / str(number)).mkdir()
        run(tmp_path / str(number), (sys.executable, "-S", str(shim), "run", str(folder / "pods" / "a")))
    assert stop_containers(ours, grace=60) == 1
    assert find_supervisors(ours) == []
    assert stop_containers(others, grace=60) == 1
