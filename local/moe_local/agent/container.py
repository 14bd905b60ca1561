"""One container of a pod: its attempts and probes, how it is stopped, and what its end means."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from moe_local.agent import logs, probes
from moe_local.agent.config import BackOff
from moe_local.agent.launch import Execution, ExitRecord, Launch
from moe_local.agent.lifecycle import next_back_off
from moe_local.agent.pod import Container, Exec, Hook, Probe
from moe_local.agent.processes import (
    Lost,
    Running,
    StartError,
    attempts,
    drop_old_attempts,
    execute,
    find,
    start,
)
from moe_local.agent.state import LOST_CODE, ContainerState, Exit, Problem

MOST_MESSAGE = 4096
MESSAGE_FROM_LOG_LINES = 80
MESSAGE_FROM_LOG_BYTES = 2048
KILL_SIGNALS = {9: "Killed by signal 9 (SIGKILL)", 11: "Killed by signal 11 (SIGSEGV)"}
Tell = Callable[[str, str, str], None]
"""Called with the kind of an event (Normal or Warning), its reason and its message."""


class ContainerRun:
    """Runs one container. Its `state` is up to date whenever `changed` is called."""

    def __init__(
        self,
        container: Container,
        *,
        folder: Path,
        pod_uid: str,
        back_off: BackOff,
        grace: float,
        changed: Callable[[], None],
        tell: Tell,
    ) -> None:
        self.container = container
        self.state = ContainerState(container.name)
        self._folder = folder
        self._pod_uid = pod_uid
        self._back_off = back_off
        self._grace = grace
        self._adopted = False
        self._changed = changed
        self._tell = tell
        self._process: Running | None = None
        self._prober: probes.Prober | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._kill_at: float | None = None
        self._kill_timer: asyncio.TimerHandle | None = None

    @property
    def next_folder(self) -> Path:
        """The folder of the next attempt."""
        return self._folder / str(self.state.attempt + 1)

    def _id(self, attempt: int) -> str:
        return f"moe-local://{self._pod_uid}/{self.container.name}/{attempt}"

    # Starting, and finding what already runs

    async def begin(self, launch: Launch, prober: probes.Prober) -> None:
        """Start the next attempt. A command that cannot be started counts as an attempt that ended."""
        folder = self.next_folder
        try:
            process = await start(folder, launch)
        except StartError as error:
            self._count_attempt()
            self.state.started_at = time.time()
            self._tell("Warning", "Failed", f"Error: {error}")
            self._end(Exit(128, time.time(), time.time(), "StartError", message=str(error)))
            return
        self._count_attempt()
        self._run(process, time.time(), prober)
        self._tell("Normal", "Started", f"Started container {self.container.name}")
        drop_old_attempts(self._folder)

    def _count_attempt(self) -> None:
        state = self.state
        (self.next_folder / "back-off").write_text(str(state.back_off))
        state.attempt += 1
        state.previous, state.exit = state.exit or state.previous, None
        state.problem = None
        state.stopping = False

    def _run(self, process: Running, started_at: float, prober: probes.Prober) -> None:
        self._process, self._prober = process, prober
        self.state.started_at = started_at
        self.state.started = self.container.startup_probe is None
        self.state.ready = self.state.started and self.container.readiness_probe is None
        self._task(self._await_end(process))
        if self.container.lifecycle.post_start:
            self._task(self._hook(self.container.lifecycle.post_start, 30))
        if self.container.startup_probe:
            self._task(self._startup(self.container.startup_probe))
        else:
            self._probe_running()
        self._changed()

    async def adopt(self, prober: probes.Prober) -> None:
        """Take over what an earlier run of the agent has left: attempts that have ended, and one that still runs."""
        if self._adopted:
            return
        for number in attempts(self._folder):
            folder = self._folder / str(number)
            found = await find(folder)
            if found is None:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            with contextlib.suppress(OSError, ValueError):
                self.state.back_off = float((folder / "back-off").read_text())
            self.state.attempt = number
            self.state.previous, self.state.exit = self.state.exit or self.state.previous, None
            if isinstance(found, Running):
                self._run(found, found.started_at, prober)
            else:
                self._end(self._exit(found, number))
        self._adopted = True

    async def _await_end(self, process: Running) -> None:
        ended = await process.ended()
        self._end(self._exit(ended, self.state.attempt))

    def _exit(self, ended: ExitRecord | Lost, attempt: int) -> Exit:
        """Return the end of an attempt as the API describes it."""
        message = self._message(attempt, failed=isinstance(ended, Lost) or ended["code"] != 0)
        if isinstance(ended, Lost):
            return Exit(
                LOST_CODE,
                ended.started_at,
                time.time(),
                "ContainerStatusUnknown",
                message=message or "the container was lost: its supervisor or this machine was stopped",
                container_id=self._id(attempt),
                lost=True,
            )
        reason = "StartError" if ended["startError"] else "Error" if ended["code"] else "Completed"
        if ended.get("outOfMemory"):  # records of older versions lack it
            reason = "OOMKilled"
        return Exit(
            ended["code"],
            ended["startedAt"],
            ended["finishedAt"],
            reason,
            signal=ended["signal"],
            message=ended["startError"] or message,
            container_id=self._id(attempt),
        )

    def _message(self, attempt: int, *, failed: bool) -> str:
        """Return the termination message: from its file, or else (if the pod says so) from the end of the log."""
        folder = self._folder / str(attempt)
        text = ""
        with contextlib.suppress(OSError), open(folder / "termination-log", "rb") as file:
            text = file.read(MOST_MESSAGE).decode(errors="replace")
        if not text and failed and self.container.termination_message_policy == "FallbackToLogsOnError":
            lines = list(logs.tail(folder, MESSAGE_FROM_LOG_LINES))
            text = "\n".join(line.text for line in lines)[-MESSAGE_FROM_LOG_BYTES:]
        return text

    def _end(self, ended: Exit) -> None:
        """Record the end of the attempt, and when the next one may start."""
        self.cancel()
        state = self.state
        state.exit, state.started, state.ready = ended, False, False
        wait = 0.0 if ended.lost else state.back_off
        state.back_off = next_back_off(wait, ended.finished_at - ended.started_at, self._back_off)
        state.retry_at = ended.finished_at + wait
        self._process = None
        self._changed()

    # Stopping

    def stop(self, grace: float, why: str) -> None:
        """Run the preStop hook, then send SIGTERM; everything is killed when the grace period is over."""
        if not self._process or self.state.stopping:
            return
        self.state.stopping = True
        self.state.ready = False
        self._tell("Normal", "Killing", why)
        self.kill_within(grace)
        self._task(self._stop(self._process, grace))
        self._changed()

    def kill_within(self, seconds: float) -> None:
        """Kill the container after this many seconds at the latest; an earlier deadline that was set before is kept."""
        loop = asyncio.get_running_loop()
        moment = loop.time() + seconds
        if not self._process or (self._kill_at is not None and self._kill_at <= moment):
            return
        if self._kill_timer:
            self._kill_timer.cancel()
        self._kill_at = moment
        self._kill_timer = loop.call_later(seconds, self._process.kill)

    async def _stop(self, process: Running, grace: float) -> None:
        if self.container.lifecycle.pre_stop:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hook(self.container.lifecycle.pre_stop, grace), grace)
        process.terminate()

    async def _hook(self, hook: Hook, seconds: float) -> None:
        problem = ""
        if hook.exec:
            code, output = await self._execute(hook.exec, seconds)
            problem = output.strip() if code else ""
        elif hook.http_get and self._prober:
            problem = await self._prober.http(hook.http_get, self.container.ports, seconds)
        elif hook.sleep:
            await asyncio.sleep(hook.sleep.seconds)
        if problem:
            self._tell("Warning", "FailedHook", problem)

    def cancel(self) -> None:
        """End the probes and timers of the latest attempt; the container itself keeps running."""
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        if self._kill_timer:
            self._kill_timer.cancel()
        self._kill_timer, self._kill_at = None, None
        if self._process:
            self._process.forget()

    # Probes

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _startup(self, probe: Probe) -> None:
        def report(passed: bool, problem: str) -> None:
            if not passed:
                self._unhealthy("Startup", problem)
                self._restart("startup", probe)

        await probes.repeat(probe, initially=False, check=self._check, report=report, once=True)
        self.state.started = True
        self.state.ready = self.container.readiness_probe is None
        self._probe_running()
        self._changed()

    def _probe_running(self) -> None:
        liveness, readiness = self.container.liveness_probe, self.container.readiness_probe

        def alive(passed: bool, problem: str) -> None:
            if not passed and liveness:
                self._unhealthy("Liveness", problem)
                self._restart("liveness", liveness)

        def ready(passed: bool, problem: str) -> None:
            if not passed:
                self._unhealthy("Readiness", problem)
            if not self.state.stopping and self.state.ready != passed:
                self.state.ready = passed
                self._changed()

        if liveness:
            self._task(probes.repeat(liveness, initially=True, check=self._check, report=alive))
        if readiness:
            self._task(probes.repeat(readiness, initially=False, check=self._check, report=ready))

    async def _check(self, probe: Probe) -> str:
        if not self._prober:
            return "the container does not run"
        return await self._prober.check(probe, self.container, self._execute)

    async def _execute(self, command: Exec, seconds: float) -> tuple[int, str]:
        if not self._process:
            return 1, "the container does not run"
        process = self._process
        execution: Execution = {
            "command": list(command.command),
            "main": process.main,
            "cgroups": process.cgroups,
        }
        return await execute(execution, seconds)

    def _unhealthy(self, kind: str, problem: str) -> None:
        self._tell("Warning", "Unhealthy", f"{kind} probe failed: {problem}")

    def _restart(self, kind: str, probe: Probe) -> None:
        grace = probe.termination_grace_period_seconds
        name = self.container.name
        self.stop(
            self._grace if grace is None else grace,
            f"Container {name} failed {kind} probe, will be restarted",
        )

    def set_problem(self, problem: Problem, retry_at: float) -> None:
        """Note that it cannot be started now, and why."""
        self.state.problem, self.state.retry_at = problem, retry_at
