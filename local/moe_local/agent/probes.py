"""Startup, liveness and readiness probes, with the kubelet's thresholds."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from moe_local.agent.pod import Container, Exec, HTTPGet, Port, Probe

Execute = Callable[[Exec, float], Awaitable[tuple[int, str]]]
"""Runs a command in the container and returns its exit status and output."""
DRAIN_BYTES = 10 * 1024


@dataclass
class Tracker:
    """Counts equal results of one probe in a row; `value` changes when a threshold is reached."""

    probe: Probe
    value: bool
    _row: int = 0
    _last: bool | None = None

    def add(self, success: bool) -> bool:
        """Take one result; return True if it reached a threshold."""
        self._row = self._row + 1 if success == self._last else 1
        self._last = success
        threshold = self.probe.success_threshold if success else self.probe.failure_threshold
        if self._row < threshold:
            return False
        changed = self.value != success
        self.value = success
        return changed or (not success and self._row == threshold)


def port_number(port: int | str, ports: tuple[Port, ...]) -> int:
    """Return a port, given by number or by the container's name for it. Raises ValueError."""
    if isinstance(port, int):
        return port
    for known in ports:
        if known.name == port:
            return known.container_port
    if port.isdigit():
        return int(port)
    raise ValueError(f"the container has no port named {port!r}")


class Prober:
    """Runs checks against one pod's address."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address

    async def check(self, probe: Probe, container: Container, execute: Execute) -> str:
        """Run the check once; return '' on success, else what went wrong."""
        try:
            if probe.http_get:
                return await self.http(probe.http_get, container.ports, probe.timeout_seconds)
            if probe.tcp_socket:
                port = port_number(probe.tcp_socket.port, container.ports)
                return await self._tcp(probe.tcp_socket.host or self._address, port, probe.timeout_seconds)
            if probe.exec:
                code, output = await execute(probe.exec, probe.timeout_seconds)
                return "" if code == 0 else f"exit status {code}: {output.strip()}"
        except ValueError as error:
            return str(error)
        return "this node does not support this kind of probe: use httpGet, tcpSocket or exec"

    async def http(self, target: HTTPGet, ports: tuple[Port, ...], seconds: float) -> str:
        """Send one GET; return '' if the status is 200 to 399."""
        host = target.host or self._address
        url = f"{target.scheme.lower()}://{host}:{port_number(target.port, ports)}/{target.path.lstrip('/')}"
        timeout = aiohttp.ClientTimeout(total=seconds)
        headers = {header.name: header.value for header in target.http_headers}
        verify: ssl.SSLContext | bool = (
            target.scheme != "HTTPS"
        )  # like the kubelet, which trusts any certificate
        try:
            async with self._session.get(
                url, timeout=timeout, headers=headers, ssl=verify, allow_redirects=False
            ) as response:
                body = await response.content.read(DRAIN_BYTES)
                if 200 <= response.status < 400:
                    return ""
                return f"HTTP probe failed with statuscode: {response.status}: {body[:200].decode(errors='replace')}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"Get {url}: {error or type(error).__name__}"

    async def _tcp(self, host: str, port: int, seconds: float) -> str:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), seconds)
        except (OSError, TimeoutError) as error:
            return f"dial tcp {host}:{port}: {error or type(error).__name__}"
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return ""


async def repeat(
    probe: Probe,
    *,
    initially: bool,
    check: Callable[[Probe], Awaitable[str]],
    report: Callable[[bool, str], None],
    once: bool = False,
) -> None:
    """Check as long as the container runs, and report each time a threshold is reached.

    `once` ends after the first success that counts (a startup probe).
    """
    await asyncio.sleep(probe.initial_delay_seconds)
    tracker = Tracker(probe, initially)
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        problem = await check(probe)
        if tracker.add(not problem):
            report(tracker.value, problem)
        if once and tracker.value:
            return
        await asyncio.sleep(max(0.0, began + probe.period_seconds - loop.time()))
