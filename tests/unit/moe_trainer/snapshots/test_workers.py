import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from moe_formats.failure import TransientError
from moe_trainer import snapshot
from moe_trainer.snapshots import intake, workers
from moe_trainer.snapshots.workers import Workers

from ..conftest import Place
from ..test_snapshot import Prose


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BATCHES_ALONE", 0)


def where(batch: int) -> tuple[int, int]:
    return batch, os.getpid()


def fail_at_three(batch: int) -> int:
    if batch == 3:
        raise ValueError("three is odd")
    return batch


def die_at_three(batch: int) -> int:
    if batch == 3:
        os._exit(9)
    return batch


def test_results_come_in_order_from_processes_that_are_kept() -> None:
    with Workers(where, 2) as pool:
        first, second = list(pool.map(range(7))), list(pool.map(range(3)))
    assert [batch for batch, _ in first + second] == [*range(7), *range(3)]
    pids = {pid for _, pid in first + second}
    assert len(pids) == 2 and os.getpid() not in pids


def test_little_work_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BATCHES_ALONE", 5)
    with Workers(where, 2) as pool:
        assert {pid for _, pid in pool.map(range(5))} == {os.getpid()}
    with Workers(where, 1) as pool:
        assert {pid for _, pid in pool.map(range(9))} == {os.getpid()}


@pytest.mark.parametrize(("work", "said"), [(fail_at_three, "three is odd"), (die_at_three, "memory")])
def test_a_process_that_fails_or_ends_is_another_attempts_matter(
    work: Callable[[int], int], said: str
) -> None:
    with pytest.raises(TransientError, match=f"Crashed.*{said}"), Workers(work, 2) as pool:
        list(pool.map(range(9)))


def test_several_processes_make_the_same_snapshot(
    place: Place, prose: Prose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "BATCH_CHARACTERS", 1000)
    place.text("prose", prose(60))
    alone = place.snapshot(place.job("prose"))
    documents = (place.store / alone.path / "documents.jsonl").read_bytes()
    other = place.job("prose").model_copy(update={"pool_uid": "other"})
    shared = snapshot.run(other, replace(place.environment, threads=2))
    assert (shared.digest, shared.anchor.digest) == (alone.digest, alone.anchor.digest)
    assert (place.store / shared.path / "documents.jsonl").read_bytes() == documents


_KILLED = """
import os, time
from moe_trainer.snapshots import workers
workers.BATCHES_ALONE = 0
if __name__ == "__main__":
    with workers.Workers(time.sleep, 2) as pool:
        list(pool.map([0, 0, 0]))
        print(*(child.pid for child in pool._children), flush=True)
        time.sleep(60)
"""


def test_no_process_outlives_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_KILLED)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in children):
        assert time.monotonic() < deadline, "a child still runs"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
