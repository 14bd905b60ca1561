"""The supervisor of one container: starts its command, writes its log, outlives the agent, and records how it ended.

    python -S -I shim.py run FOLDER     < Launch       (launch.py) as JSON
    python -S -I shim.py execute        < Execution    (an exec probe or hook, in the container's namespaces)

FOLDER holds the attempt: `lock` (inherited from the agent and held as long as this process lives), `process.json`,
`exit.json`, `log` and `log.old`. SIGTERM is passed on to the command; SIGUSR1 kills all of it. When the command ends,
everything that it has left behind is killed: by the kernel if the container has a first process of its own (init.py),
else by this process, which is the reaper of all its descendants.

Only the standard library is imported, and little of it, because one such process runs for each container.
"""

from __future__ import annotations

import json
import os
import posixpath
import select
import signal
import sys
import time

TYPE_CHECKING = False
"""Our own, because importing `typing` costs every supervisor 1 MB; type checkers know the name."""
if TYPE_CHECKING:
    from typing import Any

    from moe_local.agent.launch import Cgroup, Execution, ExitRecord, Launch, ProcessRecord

LONGEST_LINE = 16 * 1024
START_FAILED = 128
RECORD_BYTES = 1024
"""exit.json is written with this size when the container starts, so that its end can be recorded on a full disk."""


class Log:
    """Writes lines with their time, `<RFC 3339> F|P <text>`; P marks a piece of a longer line.

    Each of two files may have half the allowed size: when `log` is full it becomes `log.old`.
    """

    def __init__(self, folder: str, most_bytes: int) -> None:
        self._path = f"{folder}/log"
        self._half = most_bytes // 2
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take what the command wrote."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        stamp = _stamp()
        pieces = []
        for line in lines:
            while len(line) > LONGEST_LINE:
                pieces.append(b"%s P %s\n" % (stamp, line[:LONGEST_LINE]))
                line = line[LONGEST_LINE:]
            pieces.append(b"%s F %s\n" % (stamp, line))
        while len(self._rest) > LONGEST_LINE:
            pieces.append(b"%s P %s\n" % (stamp, self._rest[:LONGEST_LINE]))
            self._rest = self._rest[LONGEST_LINE:]
        self._write(pieces)

    def finish(self) -> None:
        """Write a last line that has no newline."""
        if self._rest:
            self._write([b"%s F %s\n" % (_stamp(), self._rest)])
            self._rest = b""

    def _write(self, pieces: list[bytes]) -> None:
        try:
            for piece in pieces:
                if self._size + len(piece) > self._half:
                    self._rotate()
                self._size += os.write(self._file, piece)
        except OSError:
            return  # on a full disk log lines are lost, but the container keeps running

    def _rotate(self) -> None:
        os.rename(self._path, self._path + ".old")
        os.close(self._file)
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = 0


def _stamp() -> bytes:
    now = time.time_ns()
    seconds, nanoseconds = divmod(now, 1_000_000_000)
    return b"%s.%09dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode(), nanoseconds)


class Supervisor:
    """Runs the command of one attempt from start to end."""

    def __init__(self, folder: str, launch: Launch) -> None:
        self._folder = folder
        self._launch = launch
        self._log = Log(folder, launch["logBytes"])
        self._main = 0
        """The child: the container's first process, or the command itself if it is not isolated."""
        self._ending = -1
        self._out_of_memory = False
        self._status: int | None = None
        self._started = time.time()
        self._term_early = False

    def run(self) -> None:
        """Return when the command and all its processes have ended and the end is on disk."""
        self._take_space()
        wake, output, problem = self._start()
        self._announce(problem)
        poll = select.poll()
        for descriptor in (wake, output):
            poll.register(descriptor, select.POLLIN)
        while self._status is None:
            for descriptor, _ in poll.poll():
                data = os.read(descriptor, 65536)
                if descriptor == output and data:
                    self._log.feed(data)
                elif descriptor == output:
                    poll.unregister(output)
            self._reap()
        finished = time.time()
        self._kill_all()
        while data := _read_rest(output):
            self._log.feed(data)
        self._log.finish()
        for group in self._launch["cgroups"]:
            self._out_of_memory |= _killed_for_memory(group["folder"])
            _remove_group(group["folder"])
        _write_record(f"{self._folder}/exit.json", self._exit(problem, finished))

    def _take_space(self) -> None:
        """Write both records blank; if the disk is full, nothing has been started and nothing is left."""
        records = [f"{self._folder}/{name}.json" for name in ("process", "exit")]
        try:
            for path in records:
                _write_record(path, None)
        except OSError as error:
            for path in records:
                if os.path.exists(path):
                    os.unlink(path)
            sys.exit(f"{self._folder}: {error.strerror}")

    def _start(self) -> tuple[int, int, str]:
        """Fork the command; return the wake-up pipe, its output, and why it did not start ('' if it did)."""
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._pass_on())
        signal.signal(signal.SIGUSR1, lambda *_: self._kill_main())
        output, writer = os.pipe2(os.O_CLOEXEC)
        outcome, reporter = os.pipe2(os.O_CLOEXEC)
        self._ending, ending = os.pipe2(os.O_CLOEXEC)
        try:
            for group in self._launch["cgroups"]:
                _make_group(group)
            if self._launch["sandbox"]:
                _sibling("isolation").separate_children(self._launch["sandbox"]["identity"])
        except OSError as error:
            self._status = 0
            return wake, output, _reason(error)
        self._main = os.fork()
        if self._main == 0:
            _become(self._launch, writer, reporter, ending)
        for descriptor in (writer, reporter, ending):
            os.close(descriptor)
        problem = b""
        while piece := os.read(outcome, 4096):  # ends when exec succeeds, because the pipe closes on exec
            problem += piece
        os.close(outcome)
        if self._term_early:
            self._pass_on()
        return wake, output, problem.decode(errors="replace")

    def _announce(self, problem: str) -> None:
        """Record the process, then tell the agent, which may be gone."""
        if problem:
            return
        record: ProcessRecord = {
            "supervisor": os.getpid(),
            "main": self._main,
            "startedAt": self._started,
            "cgroups": [group["folder"] for group in self._launch["cgroups"]],
        }
        if self._launch["sandbox"]:  # its first process has the command as its first child
            record["main"] = next(iter(_children(self._main)), self._main)
        _write_record(f"{self._folder}/process.json", record)
        try:  # noqa: SIM105 (contextlib is one import more for every supervisor)
            os.write(1, b"started\n")
        except BrokenPipeError:
            pass
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 1)

    def _pass_on(self) -> None:
        if self._main and self._status is None:
            os.kill(self._main, signal.SIGTERM)
        self._term_early = True

    def _kill_main(self) -> None:
        if self._main and self._status is None:
            os.kill(self._main, signal.SIGKILL)

    def _reap(self) -> None:
        """Reap every descendant that has ended."""
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            if process == self._main:
                self._status = self._read_ending() if self._launch["sandbox"] else status
                self._status = status if self._status is None else self._status

    def _read_ending(self) -> int | None:
        """Return the wait status of the command; None if the container's first process was killed before it knew."""
        word = os.read(self._ending, 64)
        self._out_of_memory = word == _sibling("init").OUT_OF_MEMORY
        return signal.SIGKILL if self._out_of_memory else int(word) if word else None

    def _kill_all(self) -> None:
        """Kill what the command left behind: its children are ours now, and their children become ours when they end."""
        while children := _children(os.getpid()):
            for child in children:
                os.kill(child, signal.SIGKILL)
            os.waitpid(children[0], 0)
            self._reap()

    def _exit(self, problem: str, finished: float) -> ExitRecord:
        code = os.waitstatus_to_exitcode(self._status or 0)
        received = -code if code < 0 else 0
        return {
            "code": START_FAILED if problem else 128 + received if received else code,
            "signal": received,
            "startedAt": self._started,
            "finishedAt": finished,
            "startError": problem[:512],
            "outOfMemory": self._out_of_memory and code != 0,
        }


def _children(parent: int) -> list[int]:
    """Return the children of a process."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                after_name = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # not a process, or one that has just ended
        if int(after_name[1]) == parent:
            found.append(int(name))
    return found


def _make_group(group: Cgroup) -> None:
    """Make a control group with its limits. Raises OSError."""
    os.makedirs(group["folder"], exist_ok=True)
    present = {
        file: text for file, text in group["optional"].items() if os.path.exists(f"{group['folder']}/{file}")
    }
    for file, text in {**group["settings"], **present}.items():
        with open(f"{group['folder']}/{file}", "w") as setting:
            setting.write(text)


def _join_groups(folders: list[str]) -> None:
    for folder in folders:
        with open(f"{folder}/cgroup.procs", "w") as members:
            members.write("0")  # this process


def _killed_for_memory(folder: str) -> bool:
    """Return whether the kernel has killed a process of a control group because it was over its limit."""
    for file in ("memory.events", "memory.oom_control"):
        try:
            with open(f"{folder}/{file}") as counts:
                return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in counts)
        except OSError:
            continue  # the file of the other version of control groups, or the group of another resource
    return False


def _remove_group(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        return  # the agent tries again


def _read_rest(output: int) -> bytes:
    """Read what is still in the pipe, without waiting for a process that escaped and may still write."""
    ready, _, _ = select.select([output], [], [], 0)
    return os.read(output, 65536) if ready else b""


def _write_record(path: str, record: Any) -> None:
    """Overwrite the file in place, with its fixed size: the space was reserved when the container started."""
    text = json.dumps(record) if record else ""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(file, text.encode().ljust(RECORD_BYTES), 0)
    os.close(file)


def _become(launch: Launch, output: int, reporter: int, ending: int) -> None:
    """In the forked child: become the command or the container's first process, or report why that failed and end."""
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        _join_groups([group["folder"] for group in launch["cgroups"]])
        isolation = _sibling("isolation")
        sandbox = launch["sandbox"]
        if not sandbox:
            _sibling("credentials").weaken()
            isolation.die_with_parent()
            _require_supervisor(reporter)
            _start_command(launch, reporter)
        init = _sibling("init")
        init.retitle()
        _load_what_exec_needs()
        isolation.enter_new(sandbox)
        _sibling("credentials").hide_from_equals()
        isolation.die_with_parent()
        _require_supervisor(reporter)
        init.run(lambda: _start_command(launch, reporter), ending, launch["memoryBytes"])
    except BaseException as error:
        os.write(reporter, _reason(error).encode())
    os._exit(START_FAILED)


def _require_supervisor(reporter: int) -> None:
    """Raise ProcessLookupError if nobody reads this pipe any more: the supervisor ended before it was our guardian."""
    poll = select.poll()
    poll.register(reporter, 0)
    if poll.poll(0):
        raise ProcessLookupError("the supervisor ended before the container was started")


def _start_command(launch: Launch, reporter: int) -> None:
    """Become the command, in a session of its own, or report why that failed and end."""
    try:
        if os.getsid(0) != os.getpid():
            os.setsid()
        _execute(launch["command"], launch["environment"], launch["workingDirectory"])
    except BaseException as error:
        os.write(reporter, _reason(error).encode())
    os._exit(START_FAILED)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        named = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        return f"{named}: {error.strerror}"
    return str(error) or type(error).__name__


def _sibling(name: str) -> Any:
    """Import a module from the folder of this file, which is not imported as part of a package."""
    folder = posixpath.dirname(posixpath.abspath(__file__))
    if folder not in sys.path:
        sys.path.append(folder)
    return __import__(name)


def _load_what_exec_needs() -> None:
    """Import what `os.execvpe` imports: in the container, this interpreter's library may be out of sight."""
    os.get_exec_path({})


def _execute(command: list[str], environment: dict[str, str], directory: str) -> None:
    """Replace this process with the command. Raises OSError if it cannot be found or started."""
    os.chdir(directory)
    os.umask(0o022)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment)
    except FileNotFoundError:
        raise FileNotFoundError(2, "no such command in the image (or on PATH)", command[0]) from None


def _keep_descriptors_private() -> None:
    """Let no process of the container inherit a descriptor, above all the lock that says that the supervisor lives."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:
                continue  # the descriptor of this listing itself


def _run_inside(execution: Execution) -> None:
    """Run a command in a container, and exit as it does."""
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    beside = f"/proc/{execution['main']}"
    with open(f"{beside}/environ", "rb") as listing:
        pairs = [entry.partition(b"=") for entry in listing.read().split(b"\0") if entry]
    environment = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    directory = os.open(f"{beside}/cwd", os.O_PATH | os.O_CLOEXEC)
    _join_groups(execution["cgroups"])
    _load_what_exec_needs()
    _sibling("isolation").enter_existing(execution["main"])
    child = os.fork()  # only a child is in the PID namespace
    if child == 0:
        os.fchdir(directory)
        _execute(execution["command"], environment, ".")
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


def main() -> None:
    """Run the supervisor or a single command; see the docstring of the module."""
    if sys.argv[1] == "execute":
        _run_inside(json.load(sys.stdin))
    try:
        launch: Launch = json.load(sys.stdin)
    except ValueError:
        sys.exit("the agent ended before it had said what to start")
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    _keep_descriptors_private()
    _sibling("isolation").adopt_orphans()
    Supervisor(sys.argv[2], launch).run()


if __name__ == "__main__":
    main()
