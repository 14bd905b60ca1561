"""One snapshot Job, measured from outside: the part of benchmarks/snapshot.py that makes snapshots."""

import json
import os
import random
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moe_formats.job_config import ExpertRef, Filter, HoldoutRule, SnapshotJob, Source

PROCESSES = 2
LINES = 48
FILTERS = (
    Filter(name="length", min=64),
    Filter(name="characterRatio", min=0.5),
    Filter(name="nearDuplicate", threshold=0.8),
)


def make(folder: Path, size: int, *, more: bool = True) -> dict[str, Any]:
    """Make a snapshot of so many bytes, the same again, and perhaps one with a tenth more; return the figures."""
    sources = folder / "sources" / "corpora"
    sources.mkdir(parents=True)
    (folder / "store").mkdir()
    (folder / "scratch").mkdir()
    written = _write(sources / "a.jsonl", size, seed=0)
    measured = {"first": _run(folder, written), "again": _run(folder, written)}
    if not more:
        return measured
    written += _write(sources / "b.jsonl", size // 10, seed=1)
    return measured | {"tenthMore": _run(folder, written)}


def _run(folder: Path, size: int) -> dict[str, Any]:
    job = SnapshotJob(
        pool_uid="pool",
        expert=ExpertRef(name="code", uid="code"),
        sources=(Source(root="corpora", path="*.jsonl", format="text"),),
        filters=FILTERS,
        holdout=HoldoutRule(fraction=0.1, salt="salt"),
    )
    environment = {
        "PATH": os.environ["PATH"],
        "MOE_JOB_CONFIG": job.to_json(),
        "MOE_STORE": str(folder / "store"),
        "MOE_SOURCES": str(folder / "sources"),
        "MOE_SCRATCH": str(folder / "scratch"),
        "MOE_TERMINATION_LOG": str(folder / "termination"),
        "OMP_NUM_THREADS": str(PROCESSES),
    }
    began, cpu = time.perf_counter(), os.times()
    command = [sys.executable, "-m", "moe_trainer.main", "snapshot"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        peak = _peak_of_tree(process)
    seconds = time.perf_counter() - began
    used = os.times()
    if process.returncode:
        raise RuntimeError((folder / "termination").read_text())
    headline = json.loads((folder / "termination").read_text())
    return {
        "textBytes": size,
        "seconds": round(seconds, 2),
        "cpuSeconds": round(sum(used[2:4]) - sum(cpu[2:4]), 2),
        "megabytesPerSecond": round(size / seconds / 1e6, 1),
        "peakMegabytes": round(peak / 1e6, 1),
        "trainedDocuments": headline["documents"],
        "trainedBytes": headline["trainBytes"],
        "dropped": headline["dropped"],
    }


def _peak_of_tree(process: subprocess.Popen[bytes]) -> int:
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(_resident(pid) for pid in _tree(process.pid)))
        time.sleep(0.05)
    return peak


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _tree(int(child))


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


def _write(path: Path, size: int, seed: int) -> int:
    """Write records of lines of the standard library, every fifth an edited copy; return bytes of text."""
    draw = random.Random(seed)
    library = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("**/*.py"))
    texts = [file.read_text(errors="ignore") for file in library if "site-packages" not in file.parts]
    lines = [line for text in texts for line in text.splitlines(keepends=True) if line.strip()]
    recent: list[list[str]] = []
    written = 0
    with path.open("w") as file:
        while written < size:
            if recent and draw.random() < 0.2:
                chosen = list(draw.choice(recent))
                chosen[draw.randrange(len(chosen))] = draw.choice(lines)
            else:
                chosen = draw.choices(lines, k=LINES)
                recent = [*recent[-99:], chosen]
            text = "".join(chosen)
            written += len(text.encode())
            file.write(json.dumps({"text": text}) + "\n")
    return written
