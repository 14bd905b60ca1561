"""Background processes that outlive the command that started them, identified by records.

A record holds the boot, the pid and the start time. The process writes it itself before it becomes the program. So no
process is lost if the command that starts it is killed, and a pid that the kernel has given to another process, before
or after a reboot, is recognised and never killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

# $0 is the record, "$@" the program. Field 22 of /proc/<pid>/stat is the start time; it is the 20th after the
# program's name, which is in parentheses. exec keeps pid and start time.
_RECORD_THEN_EXEC = """
read -r boot </proc/sys/kernel/random/boot_id
read -r stat </proc/$$/stat
record="$boot $$ $(set -- ${stat##*) }; echo ${20})"
echo "$record" >"$0.new" && mv "$0.new" "$0" && exec "$@"
"""


@dataclass(frozen=True)
class Process:
    """One running process, distinguished from every other one that ever had its pid."""

    boot: str
    pid: int
    start_ticks: int

    @classmethod
    def recorded(cls, record: Path) -> Process | None:
        """Return the process of this record if it still runs, else None."""
        try:
            boot, pid, start_ticks = record.read_text().split()
            process = cls(boot, int(pid), int(start_ticks))
        except (FileNotFoundError, ValueError):
            return None
        return process if process.runs() else None

    def runs(self) -> bool:
        """Return whether it still runs; a zombie does not."""
        return self.boot == _boot() and _state_and_start(self.pid) == (True, self.start_ticks)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; never sends one to another process with its pid."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.runs():
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)

    def stop(self, *, grace: float) -> bool:
        """Send SIGTERM, and SIGKILL after `grace` seconds; return, once it has ended, whether SIGTERM was enough."""
        self.send(signal.SIGTERM)
        if self.wait(grace):
            return True
        self.send(signal.SIGKILL)
        self.wait(10)
        return False

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended; return False if it has not after this many seconds."""
        deadline = time.monotonic() + seconds
        while self.runs():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        _collect(self.pid)
        return True

    @property
    def arguments(self) -> tuple[str, ...]:
        """Return the arguments that it was started with."""
        return _arguments(self.pid)

    @property
    def rss_bytes(self) -> int:
        """Return its resident memory, in bytes."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    @property
    def started(self) -> datetime:
        """Return when it started."""
        seconds = psutil.boot_time() + self.start_ticks / os.sysconf("SC_CLK_TCK")
        return datetime.fromtimestamp(seconds, UTC)


def start(
    argv: Sequence[str], *, record: Path, log: Path, environment: Mapping[str, str], folder: Path
) -> Process:
    """Start a program in a session of its own, with its output in `log`, and record which process it is.

    Raises OSError if it cannot be started. `Process.runs` tells whether the program ended at once.
    """
    record.unlink(missing_ok=True)
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        child = subprocess.Popen(
            ["/bin/sh", "-c", _RECORD_THEN_EXEC, str(record), *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    try:
        while child.poll() is None and not (record.exists() and _arguments(child.pid) == tuple(argv)):
            time.sleep(0.001)
    except BaseException:  # Ctrl-C came before there was a record to find it by
        child.kill()
        raise
    # From here on the record stands for the child; without this, Popen would warn that it still runs.
    child.returncode = 0
    boot, pid, ticks = record.read_text().split()
    return Process(boot, int(pid), int(ticks))


def _arguments(pid: int) -> tuple[str, ...]:
    try:
        return tuple(Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1])
    except (FileNotFoundError, ProcessLookupError):
        return ()


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _state_and_start(pid: int) -> tuple[bool, int]:
    """Return whether the process is alive (not a zombie) and when it started; (False, 0) if it does not exist."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False, 0
    return fields[0] not in "ZX", int(fields[19])


def _collect(pid: int) -> None:
    """Collect the exit status if it is our own child, which it is if one process calls both up and down."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
