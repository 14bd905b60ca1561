"""The gateway's HTTP server: endpoints, limits, start and stop.

    moe-gateway        reads MOE_ROUTING_POLICY, MOE_STORE, PORT, METRICS_PORT, POD_IP and MOE_API_KEYS_FILE

Clients use PORT. What only the operator and Prometheus may ask is on METRICS_PORT, so that a NetworkPolicy can tell the
two apart; without METRICS_PORT it is served nowhere.

It keeps no state that has to survive a restart, calls only the servers that its policy names, and stores no
prompts.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import aiohttp
from aiohttp import web

from moe_formats.addresses import OUTSIDE_A_CLUSTER
from moe_formats.routing_policy import Limits
from moe_gateway import cors
from moe_gateway.backends import Asking, Backends
from moe_gateway.balancer import Balancer
from moe_gateway.callers import Callers, TooManyRequests
from moe_gateway.conversations import Conversation, conversation_of
from moe_gateway.decision import Decision
from moe_gateway.keys import ApiKeys
from moe_gateway.metrics import Metrics
from moe_gateway.openai import ApiError, Call, Endpoint, parse_call
from moe_gateway.policy_file import LoadedPolicy, PolicyFile
from moe_gateway.proxy import RECORD, Proxy
from moe_gateway.record import CLIENT_LEFT, Record
from moe_gateway.routing import Routing, model_names, unknown_model
from moe_web.bodies import Bodies, BodyError
from moe_web.listener import ANSWER_HEADERS, REQUEST_ID, Listener, is_cut_off, run_until_stopped

log = logging.getLogger(__name__)

#: Seconds that requests in flight get to finish after SIGTERM; the pod's grace period is longer.
DRAIN_SECONDS = 50.0

#: The endpoints for clients that have no name in their path, and the method of each.
_ENDPOINTS = {
    "/v1/completions": "POST",
    "/v1/chat/completions": "POST",
    "/v1/route": "POST",
    "/v1/models": "GET",
}

#: A handler of a request that has passed the checks of all of them.
Guarded = Callable[[web.Request, LoadedPolicy], Awaitable[web.StreamResponse]]


class Gateway:
    """A gateway: its parts, and one handler per endpoint."""

    def __init__(self, policies: PolicyFile, keys: ApiKeys, backends: Backends, metrics: Metrics) -> None:
        """Create a gateway from its parts."""
        self.policies = policies
        self.draining = False
        self._keys = keys
        self._metrics = metrics
        self._routing = Routing(backends)
        self._proxy = Proxy(backends, policies, metrics)
        self._bodies = Bodies()
        self._callers = Callers()
        self._in_flight = 0

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the endpoints for clients. Any other path is answered with status 404 in OpenAI's format."""
        return [
            web.post("/v1/completions", self._guarded(self._complete)),
            web.post("/v1/chat/completions", self._guarded(self._complete)),
            web.post("/v1/route", self._guarded(self._route)),
            web.get("/v1/models", self._guarded(self._models)),
            web.get("/v1/models/{model}", self._guarded(self._model)),
            web.options(r"/v1/{rest:[\s\S]*}", self._options),
            web.route("*", r"/v1/{rest:[\s\S]*}", self._guarded(self._unknown)),
            web.get("/healthz", self._healthz),
            web.get("/readyz", self._readyz),
            web.route("*", r"/{rest:[\s\S]*}", self._nowhere),
        ]

    def metrics_routes(self) -> list[web.AbstractRouteDef]:
        """Return the endpoints for the operator and for Prometheus, which clients must not reach."""
        return [
            web.get("/policy", self._policy),
            web.get("/observations", self._observations),
            web.get("/metrics", self._exposition),
        ]

    def _guarded(self, handler: Guarded) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Wrap a handler: check key and readiness first, give errors OpenAI's shape, and record how the request ends."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            record = Record(request[REQUEST_ID], request.method, request.path)
            request[RECORD] = record
            request[ANSWER_HEADERS] = cors.answer_headers(request, self.policies.current)
            status = CLIENT_LEFT
            try:
                response = await self._answer(request, handler, record)
                status = response.status
                return response
            except (asyncio.CancelledError, ConnectionResetError):
                record.fails(CLIENT_LEFT, "client_left")
                raise
            finally:
                record.end(status, self._metrics)

        return guarded

    async def _answer(self, request: web.Request, handler: Guarded, record: Record) -> web.StreamResponse:
        try:
            record.caller = self._keys.check(request.headers)
            loaded = self.policies.current
            if loaded is None:
                message = f"no routing policy yet: {self.policies.error}"
                raise ApiError(503, message, kind="server_error", retry_after=1)
            return await handler(request, loaded)
        except ApiError as error:
            failure = error
        except TooManyRequests as error:
            failure = _too_many(str(error), error.code, error.retry_after)
        except asyncio.CancelledError:
            if not is_cut_off(request):
                raise
            failure = _stopping()
        record.fails(failure.status, failure.code)
        return failure.response()

    async def _read_body(self, request: web.Request, limits: Limits) -> bytes:
        """Return the body. It takes no place while it arrives, so that slow clients keep out nobody."""
        self._callers.count(request[RECORD].caller, limits.per_key)
        self._check_room(limits.max_concurrency)
        try:
            return await self._bodies.read(request, limits.max_body_bytes)
        except BodyError as error:
            busy = error.status == HTTPStatus.TOO_MANY_REQUESTS
            kind = "rate_limit_error" if busy else "invalid_request_error"
            raise ApiError(
                error.status, str(error), kind=kind, code=error.code, retry_after=1 if busy else None
            ) from None

    def _check_room(self, limit: int) -> None:
        if self._in_flight >= limit:
            raise _too_many(
                f"{limit} requests are in flight, which is the most that this gateway accepts at once",
                "too_many_requests",
                1,
            )

    @contextlib.contextmanager
    def _counted(self, request: web.Request, limits: Limits) -> Iterator[None]:
        self._check_room(limits.max_concurrency)
        with self._callers.in_flight(request[RECORD].caller, limits.per_key):
            self._in_flight += 1
            self._metrics.in_flight.set(self._in_flight)
            try:
                yield
            finally:
                self._in_flight -= 1
                self._metrics.in_flight.set(self._in_flight)

    async def _complete(self, request: web.Request, loaded: LoadedPolicy) -> web.StreamResponse:
        endpoint: Endpoint = "completions" if request.path == "/v1/completions" else "chat/completions"
        limits = loaded.policy.limits
        body = await self._read_body(request, limits)
        with self._counted(request, limits):
            call = parse_call(endpoint, body, limits)
            conversation = conversation_of(
                call, request.headers.get("x-moe-conversation"), request[RECORD].caller
            )
            asking = Asking(request[REQUEST_ID])
            decision = await self._decide(call, loaded, conversation, asking)
            return await self._proxy.forward(request, call, decision, loaded, asking)

    async def _decide(
        self, call: Call, loaded: LoadedPolicy, conversation: Conversation | None, asking: Asking
    ) -> Decision:
        started = time.monotonic()
        decision = await self._routing.decide(call, loaded, conversation, asking)
        self._metrics.routing_seconds.labels(decision.strategy).observe(time.monotonic() - started)
        if decision.confidence is not None:
            self._metrics.confidence.labels(decision.expert).observe(decision.confidence)
            familiar = loaded.policy.familiar
            unmet = familiar is not None and decision.is_unmet(familiar)
            self._metrics.counts.routed(decision.expert, decision.confidence, unmet=unmet)
        return decision

    async def _route(self, request: web.Request, loaded: LoadedPolicy) -> web.Response:
        """Say where a prompt would go and why, without sending it there or remembering it."""
        limits = loaded.policy.limits
        body = await self._read_body(request, limits)
        with self._counted(request, limits):
            call, asking = parse_call("route", body, limits), Asking(request[REQUEST_ID])
            decision = await self._routing.decide(call, loaded, None, asking)
        expert = loaded.policy.expert(decision.expert)
        absent = {"complexity": f"the strategy {loaded.policy.strategy} does not measure it"}
        if decision.confidence is None:
            absent["confidence"] = "no probability was computed for this decision"
        return web.json_response(
            {
                "expert": decision.expert,
                "domain": expert.domain if expert else None,
                "revision": expert.revision if expert else None,
                "strategy": decision.strategy,
                "confidence": decision.confidence,
                "probabilities": dict(decision.probabilities),
                "bitsPerByte": dict(decision.bits_per_byte),
                "complexity": None,
                "absent": absent,
                "why": decision.why,
                "policy": loaded.digest,
            }
        )

    async def _models(self, request: web.Request, loaded: LoadedPolicy) -> web.Response:
        models = [_described(name, loaded) for name in model_names(loaded)]
        return web.json_response({"object": "list", "data": models})

    async def _model(self, request: web.Request, loaded: LoadedPolicy) -> web.Response:
        name = request.match_info["model"]
        if name not in model_names(loaded):
            raise unknown_model(name, loaded)
        return web.json_response(_described(name, loaded))

    async def _options(self, request: web.Request) -> web.StreamResponse:
        request[ANSWER_HEADERS] = cors.answer_headers(request, self.policies.current)
        return cors.preflight(request, self.policies.current) or await self._nowhere(request)

    async def _unknown(self, request: web.Request, loaded: LoadedPolicy) -> web.Response:
        raise _no_endpoint(request)

    async def _nowhere(self, request: web.Request) -> web.Response:
        error = _no_endpoint(request)
        self._metrics.rejected.labels(error.code).inc()
        return error.response()

    async def _policy(self, request: web.Request) -> web.Response:
        """Say which policy is in effect; `digest` is null until its table is loaded as well."""
        loaded = self.policies.current
        answer: dict[str, object] = {"digest": self.policies.reported_digest, "error": self.policies.error}
        if loaded is not None:
            policy = loaded.policy
            answer |= {
                "pool": policy.pool,
                "strategy": policy.strategy,
                "fallback": policy.default_expert().name,
                "table": policy.table.digest if policy.table and loaded.table else None,
                "experts": [
                    {"name": expert.name, "revision": expert.revision, "digest": expert.digest}
                    for expert in policy.experts
                ],
            }
        return web.json_response(answer)

    async def _observations(self, request: web.Request) -> web.Response:
        """Say what was counted for each Expert of the policy since the gateway started."""
        loaded = self.policies.current
        names = loaded.expert_names if loaded is not None else ()
        return web.Response(
            text=self._metrics.counts.observations(names).to_json(), content_type="application/json"
        )

    async def _exposition(self, request: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"}
        )

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        if self.draining:
            return web.json_response({"status": "stopping"}, status=503)
        if self.policies.current is None:
            return web.json_response(
                {"status": "no routing policy", "error": self.policies.error}, status=503
            )
        return web.json_response({"status": "ready"})


def _no_endpoint(request: web.Request) -> ApiError:
    message = f"there is no {request.method} {request.path} here"
    meant = "/v1/" + "/".join(part for part in request.path.split("/") if part not in ("", "v1"))
    if meant not in _ENDPOINTS:
        return ApiError(404, message, code="unknown_endpoint")
    if meant == request.path:
        message += f", only {_ENDPOINTS[meant]}"
    else:
        message += f". It is {meant}: the base URL of a client ends with /v1"
    return ApiError(404, message, code="unknown_endpoint")


def _described(model: str, loaded: LoadedPolicy) -> dict[str, object]:
    return {
        "id": model,
        "object": "model",
        "created": int(loaded.loaded_at),
        "owned_by": loaded.policy.pool,
    }


def _too_many(message: str, code: str, retry_after: int) -> ApiError:
    return ApiError(429, message, kind="rate_limit_error", code=code, retry_after=retry_after)


def _stopping() -> ApiError:
    message = "the gateway stops, and the time for requests in flight is over: try again"
    return ApiError(503, message, kind="server_error", code="stopping", retry_after=1)


@contextlib.asynccontextmanager
async def open_gateway(
    policy_path: Path, store: Path, keys_path: Path | None = None, balancer: Balancer | None = None
) -> AsyncIterator[Gateway]:
    """Yield a gateway that watches its policy; leaving the block closes its connections."""
    metrics = Metrics()
    policies = PolicyFile(policy_path, store, on_load=metrics.policy_loaded)
    policies.refresh()
    connector = aiohttp.TCPConnector(limit=0, use_dns_cache=False)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        own_address = os.environ.get("POD_IP") or OUTSIDE_A_CLUSTER
        backends = Backends(
            session,
            balancer or Balancer(own_address=own_address),
            on_retry=lambda expert: metrics.retries.labels(expert).inc(),
        )
        watching = asyncio.create_task(policies.watch())
        try:
            yield Gateway(policies, ApiKeys(keys_path), backends, metrics)
        finally:
            watching.cancel()


async def serve() -> None:
    """Run a gateway, configured by environment variables, until SIGTERM."""
    keys = os.environ.get("MOE_API_KEYS_FILE")
    policy_path = Path(os.environ["MOE_ROUTING_POLICY"])
    store = Path(os.environ.get("MOE_STORE", "."))
    async with open_gateway(policy_path, store, Path(keys) if keys else None) as gateway:
        host = os.environ.get("POD_IP", "127.0.0.1")
        listeners = [
            Listener(_application(gateway.routes()), host=host, port=int(os.environ.get("PORT", "8080")))
        ]
        if port := os.environ.get("METRICS_PORT"):
            listeners.append(Listener(_application(gateway.metrics_routes()), host=host, port=int(port)))

        def stop_taking() -> None:
            gateway.draining = True

        await run_until_stopped(listeners, on_stop=stop_taking, drain_seconds=DRAIN_SECONDS)


def _application(routes: list[web.AbstractRouteDef]) -> web.Application:
    app = web.Application()
    app.add_routes(routes)
    return app


def main() -> None:
    """Console script `moe-gateway`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    missing = [name for name in ("MOE_ROUTING_POLICY",) if name not in os.environ]
    if missing:
        raise SystemExit(f"moe-gateway: set {missing[0]} to the path of the routing policy")
    asyncio.run(serve())
