"""Attempts of a container on disk: starts them under a supervisor, finds them after a restart, signals them, reads their end.

An attempt is a folder. The supervisor (shim.py) holds its `lock` as long as it lives; the agent takes the lock before it
starts the supervisor, which inherits it. So an attempt whose lock is free is over, whatever happened to the agent, and
no process id is trusted unless the lock is held. Exits are noticed through pidfds, which also work for processes that
an earlier run of the agent has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from moe_local.agent import cgroups
from moe_local.agent.launch import Execution, ExitRecord, Launch, ProcessRecord

SHIM = Path(__file__).with_name("shim.py")
PYTHON = (sys.executable, "-S", "-I")
LOG_BYTES = 10 * 1024 * 1024
KEPT_ATTEMPTS = 2
APPEAR_SECONDS = 5.0


class StartError(Exception):
    """The command could not be started."""


@dataclass(frozen=True)
class Lost:
    """The supervisor ended without saying how the command ended: it was killed, or the machine stopped."""

    started_at: float


def read_record(path: Path) -> dict[str, Any] | None:
    """Return a JSON record; None while it is missing or blank."""
    try:
        text = path.read_text().strip()
        return cast(dict[str, Any], json.loads(text)) if text else None
    except (OSError, ValueError):
        return None


def write_record(path: Path, record: Mapping[str, object]) -> None:
    """Write a record as a whole or not at all, even if this process is killed."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(record))
    temporary.rename(path)


def _locked_elsewhere(folder: Path) -> bool:
    try:
        lock = os.open(folder / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


class Running:
    """A running supervisor and the command under it."""

    def __init__(self, folder: Path, supervisor: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.folder = folder
        self._child = child
        self._pidfd = os.pidfd_open(supervisor)
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_end)

    def _on_end(self) -> None:
        self.forget()
        if self._child:
            self._child.wait()
        if not self._ended.done():
            self._ended.set_result(None)

    def forget(self) -> None:
        """Stop watching; the process keeps running."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    @property
    def main(self) -> int:
        """Return the process id of the command; 0 until it has started."""
        record = read_record(self.folder / "process.json")
        return int(record["main"]) if record else 0

    @property
    def cgroups(self) -> list[str]:
        """Return the folders of its control groups."""
        record = read_record(self.folder / "process.json")
        return list(record.get("cgroups", [])) if record else []

    @property
    def started_at(self) -> float:
        """Return when the command was started, in seconds since the epoch."""
        record = read_record(self.folder / "process.json")
        return float(record["startedAt"]) if record else (self.folder / "lock").stat().st_mtime

    async def ended(self) -> ExitRecord | Lost:
        """Wait for the end; also kill what a dead supervisor could not."""
        await asyncio.shield(self._ended)
        return outcome(self.folder)

    def terminate(self) -> None:
        """Ask the command to end (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the command and everything it has started."""
        self._signal(signal.SIGUSR1)

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)


def outcome(folder: Path) -> ExitRecord | Lost:
    """Return how an attempt whose lock is free has ended."""
    record = read_record(folder / "exit.json")
    if record:
        return cast(ExitRecord, record)
    process = cast(ProcessRecord | None, read_record(folder / "process.json"))
    if process:
        _kill_remains(process)
    return Lost(process["startedAt"] if process else (folder / "lock").stat().st_mtime)


def _kill_remains(process: ProcessRecord) -> None:
    """Kill what outlived a killed supervisor: a container that is not isolated loses its command only."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process["main"], signal.SIGKILL)
    cgroups.remove(map(Path, process.get("cgroups", [])))


async def start(folder: Path, launch: Launch) -> Running:
    """Start a container's command and return when it runs. Raises StartError if it cannot run, OSError on a full disk."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with open(folder / "supervisor.log", "wb") as errors:
            child = subprocess.Popen(
                [*PYTHON, str(SHIM), "run", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd="/",
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"},
                pass_fds=(lock,),
                start_new_session=True,
            )
    finally:
        os.close(lock)
    running = Running(folder, child.pid, child)
    said = await _hand_over(child, launch)
    if said:
        return running
    ended = await running.ended()
    if isinstance(ended, Lost):
        text = (folder / "supervisor.log").read_text()[-512:].strip()
        raise OSError(text or "the container's supervisor was killed before it had started the command")
    raise StartError(ended["startError"])


async def _hand_over(child: subprocess.Popen[bytes], launch: Launch) -> bytes:
    """Give the supervisor its task and wait until it reports that the command runs; b'' if it ended instead."""
    assert child.stdin and child.stdout
    loop = asyncio.get_running_loop()
    with contextlib.suppress(BrokenPipeError), child.stdin as stdin:
        stdin.write(json.dumps(launch).encode())
    word: asyncio.Future[bytes] = loop.create_future()
    descriptor = child.stdout.fileno()

    def ready() -> None:
        loop.remove_reader(descriptor)
        if not word.done():
            word.set_result(os.read(descriptor, 64))

    loop.add_reader(descriptor, ready)
    try:
        return await word
    finally:
        loop.remove_reader(descriptor)
        child.stdout.close()


async def find(folder: Path) -> Running | ExitRecord | Lost | None:
    """Return the state of an attempt that an earlier run of the agent made; None if it never got a supervisor."""
    if not (folder / "lock").exists():
        return None
    deadline = asyncio.get_running_loop().time() + APPEAR_SECONDS
    while _locked_elsewhere(folder):
        record = cast(ProcessRecord | None, read_record(folder / "process.json"))
        if record:
            try:
                return Running(folder, record["supervisor"])
            except ProcessLookupError:
                continue
        if asyncio.get_running_loop().time() > deadline:
            raise OSError(f"{folder}: a supervisor holds the lock but has not recorded its process id")
        await asyncio.sleep(0.02)
    if not (folder / "exit.json").exists():
        return None
    return outcome(folder)


def attempts(container: Path) -> list[int]:
    """Return the numbers of the attempts on disk, oldest first."""
    if not container.is_dir():
        return []
    return sorted(int(entry.name) for entry in container.iterdir() if entry.name.isdigit())


def drop_old_attempts(container: Path) -> None:
    """Remove all attempts but the latest and the one before it, which `kubectl logs --previous` shows."""
    for number in attempts(container)[:-KEPT_ATTEMPTS]:
        shutil.rmtree(container / str(number), ignore_errors=True)


async def execute(execution: Execution, seconds: float) -> tuple[int, str]:
    """Run a command in a container's namespaces; return its exit status (-1 if it took too long) and its output."""
    process = await asyncio.create_subprocess_exec(
        *PYTHON,
        str(SHIM),
        "execute",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        cwd="/",
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(json.dumps(execution).encode()), seconds)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        return -1, f"timed out after {seconds:g} s"
    return process.returncode or 0, output.decode(errors="replace")[-1024:]
