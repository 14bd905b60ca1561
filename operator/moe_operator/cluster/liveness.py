"""The endpoints for the kubelet: /healthz fails if the operator makes no progress, /readyz until the cache is filled."""

from collections.abc import Callable

from aiohttp import web

#: Largest number of seconds that a key may wait or be under way. It is long enough for a few requests that each time
#: out after 30 s and are repeated.
LONGEST_WAIT = 300.0


class Liveness:
    """Tells a working operator from a stuck one."""

    def __init__(
        self,
        *,
        oldest_seconds: Callable[[], float],
        sweep_age: Callable[[], float],
        longest_sweep_age: float,
        waits_for: Callable[[], str] = lambda: "",
    ) -> None:
        """Take functions that return the age of the oldest key and of the last complete sweep, in seconds.

        ``waits_for`` returns what the start of the operator waits for, if anything but the first lists.
        """
        self._waits_for = waits_for
        self.ready = False
        self._oldest_seconds = oldest_seconds
        self._sweep_age = sweep_age
        self._longest_sweep_age = longest_sweep_age

    def problem(self) -> str | None:
        """Return why the operator makes no progress; None if it does."""
        if not self.ready:
            return None  # An operator that waits for the Lease or for the API server must not be restarted.
        oldest, sweep = self._oldest_seconds(), self._sweep_age()
        if oldest > LONGEST_WAIT:
            return f"a key has waited for {oldest:.0f} s, longer than {LONGEST_WAIT:.0f} s"
        if sweep > self._longest_sweep_age:
            return f"the last sweep ended {sweep:.0f} s ago, more than {self._longest_sweep_age:.0f} s"
        return None

    def application(self) -> web.Application:
        """Return the web application with /healthz and /readyz."""
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/readyz", self._readyz)])
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        problem = self.problem()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(text=self.stage(), status=200 if self.ready else 503)

    def stage(self) -> str:
        """Return how far the start of the operator is."""
        if self.ready:
            return "ready"
        waits_for = self._waits_for()
        return f"waiting: {waits_for}" if waits_for else "priming: reading all objects into the cache"
