"""The operator's probes: /healthz proves progress, /readyz that the cache is primed."""

from collections.abc import Callable

from aiohttp import web

#: Seconds that the oldest key may wait or be under way. One request gives up after 30 s and a few tries.
LONGEST_WAIT = 300.0


class Liveness:
    """What is looked at to tell a working operator from a stuck one."""

    def __init__(
        self,
        *,
        oldest_seconds: Callable[[], float],
        sweep_age: Callable[[], float],
        longest_sweep_age: float,
    ) -> None:
        """Read the queue's oldest item and the age of the newest complete sweep when asked."""
        self.ready = False
        self._oldest_seconds = oldest_seconds
        self._sweep_age = sweep_age
        self._longest_sweep_age = longest_sweep_age

    def problem(self) -> str | None:
        """Return why the operator makes no progress, or None if it does."""
        if not self.ready:
            return None  # Waiting for the Lease or for the API server is no reason to start over.
        oldest, sweep = self._oldest_seconds(), self._sweep_age()
        if oldest > LONGEST_WAIT:
            return f"a key has waited for {oldest:.0f} s, more than {LONGEST_WAIT:.0f} s"
        if sweep > self._longest_sweep_age:
            return f"the last sweep was {sweep:.0f} s ago, more than {self._longest_sweep_age:.0f} s"
        return None

    def application(self) -> web.Application:
        """Return the endpoints."""
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/readyz", self._readyz)])
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        problem = self.problem()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(text="ready" if self.ready else "priming", status=200 if self.ready else 503)
