"""The HTTP endpoints of an Expert's server.

POST /v1/completions, /v1/chat/completions      GET /v1/models
GET  /ready?digest=sha256:…   200 only while exactly this artefact is loaded and requests are accepted
GET  /health
GET  /metrics                 on a port of its own, for Prometheus
GET  /observations            on that port, for the operator
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from aiohttp import web

from moe_formats.serve_config import ServeConfig
from moe_trainer.models.generation_config import DEFAULT_TEMPERATURE
from moe_trainer.server.engine import Engine, Finished, Generated, QueueFull, Ticket
from moe_trainer.server.metrics import Metrics
from moe_trainer.server.planning import Plan, Planner, Planning, Served
from moe_trainer.server.requests import BadRequest
from moe_trainer.server.responses import DONE, Choice, Json, Piece, envelope, server_sent, usage
from moe_trainer.text.tokenizer import Tokenizer
from moe_web.bodies import Bodies, BodyError
from moe_web.listener import is_cut_off, write

#: Largest request body, in bytes.
MAX_BODY_BYTES = 4 * 1024 * 1024


#: The method of each endpoint that clients confuse.
_METHODS = {"/v1/completions": "POST", "/v1/chat/completions": "POST", "/v1/models": "GET"}


class EngineFailed(Exception):
    """A forward pass failed while a request was being answered."""


class ExpertServer:
    """The endpoints of one Expert, or of several whose banks have the same base."""

    def __init__(
        self,
        config: ServeConfig,
        engine: Engine,
        tokenizer: Tokenizer,
        max_context: int,
        temperatures: Mapping[str, float] = MappingProxyType({}),
        banks: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Serve the model in ``engine`` under the names in ``config``.

        ``temperatures`` are the defaults for requests without one, by Expert. ``banks`` gives the number of each
        Expert's bank in the composed model; Experts that are not in it see no bank.
        """
        self.draining = False
        self._config = config
        self._engine = engine
        self._max_context = max_context
        self._metrics = Metrics(config.expert, engine.load)
        self._served = {
            entry.expert: Served(
                entry.expert,
                entry.revision,
                entry.artefact.digest,
                banks.get(entry.expert),
                self._metrics.of(entry.expert),
                temperatures.get(entry.expert, DEFAULT_TEMPERATURE),
            )
            for entry in (config, *config.banks)
        }
        reader = tokenizer.prompt_reader()
        self._planner = Planner(self._served, tokenizer, reader, max_context)
        self._planning = Planning(reader)
        self._bodies = Bodies()
        self._started = int(time.time())

    def application(self) -> web.Application:
        """Return the aiohttp application for gateways and probes. Any other path has status 404 in OpenAI's format."""
        app = web.Application()
        app.on_response_prepare.append(self._name_revision)
        app.on_cleanup.append(self._close)
        app.add_routes(
            [
                web.post("/v1/completions", self._completions),
                web.post("/v1/chat/completions", self._chat),
                web.get("/v1/models", self._models),
                web.get("/ready", self._ready),
                web.get("/health", self._health),
                web.route("*", r"/{rest:[\s\S]*}", self._nowhere),
            ]
        )
        return app

    def metrics_application(self) -> web.Application:
        """Return the aiohttp application for Prometheus and the operator, which gateways need not reach."""
        app = web.Application()
        app.add_routes([web.get("/metrics", self._exposition), web.get("/observations", self._observations)])
        return app

    async def _close(self, _: web.Application) -> None:
        self._planning.close()

    async def _name_revision(self, request: web.Request, response: web.StreamResponse) -> None:
        served = request.get(_SERVED) or self._served[self._config.expert]
        response.headers["x-moe-expert"] = served.expert
        response.headers["x-moe-revision"] = served.revision

    async def _nowhere(self, request: web.Request) -> web.Response:
        only = _METHODS.get(request.path)
        message = f"there is no {request.method} {request.path} here" + (f", only {only}" if only else "")
        error = BadRequest(message, code="unknown_endpoint", status=404)
        return web.json_response(error.body, status=error.status)

    async def _ready(self, request: web.Request) -> web.Response:
        asked, loaded = request.query.get("digest"), self._config.artefact.digest
        if self.draining:
            return web.json_response({"ready": False, "reason": "stopping", "digest": loaded}, status=503)
        if asked is not None and asked not in {served.digest for served in self._served.values()}:
            return web.json_response(
                {"ready": False, "reason": "another artefact", "digest": loaded}, status=503
            )
        return web.json_response({"ready": True, "digest": asked or loaded})

    async def _health(self, request: web.Request) -> web.Response:
        alive = self._engine.load().alive
        return web.json_response({"alive": alive}, status=200 if alive else 500)

    async def _exposition(self, request: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"}
        )

    async def _observations(self, request: web.Request) -> web.Response:
        return web.Response(text=self._metrics.observations().to_json(), content_type="application/json")

    async def _models(self, request: web.Request) -> web.Response:
        models = [
            {
                "id": served.expert,
                "object": "model",
                "created": self._started,
                "owned_by": "moe-operator",
                "root": served.revision,
                "max_model_len": self._max_context - 1,
            }
            for served in self._served.values()
        ]
        return web.json_response({"object": "list", "data": models})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, self._planner.completion)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, self._planner.chat)

    async def _answer(self, request: web.Request, make_plan: Callable[[bytes], Plan]) -> web.StreamResponse:
        """Answer a request, whole or as a stream; errors have OpenAI's format."""
        started = time.monotonic()
        try:
            plan = await self._planning.plan(make_plan, await self._read_body(request))
            plan = _capped(plan, request.headers.get("x-moe-max-tokens", ""))
            request[_SERVED] = plan.served
            ticket = self._engine.submit(plan.generations)
            if plan.stream:
                return await self._stream(request, plan, ticket, started)
            return web.json_response(await self._whole(plan, ticket, started))
        except BadRequest as error:
            return web.json_response(error.body, status=error.status)
        except QueueFull:
            busy = BadRequest(
                f"{self._config.max_queue} requests are already waiting: try again later",
                code="too_many_requests",
            )
            return web.json_response(busy.body, status=429, headers={"Retry-After": "1"})
        except EngineFailed:
            return web.json_response(_FAILED.body, status=500)
        except asyncio.CancelledError:
            if not is_cut_off(request):
                raise  # The client has left.
            return web.json_response(_STOPPING.body, status=_STOPPING.status, headers={"Retry-After": "1"})

    async def _read_body(self, request: web.Request) -> bytes:
        try:
            return await self._bodies.read(request, MAX_BODY_BYTES)
        except BodyError as error:
            raise BadRequest(str(error), code=error.code, status=error.status) from None

    async def _whole(self, plan: Plan, ticket: Ticket, started: float) -> Json:
        pieces: list[list[Piece]] = [[] for _ in plan.choices]
        async for choice, piece in self._pieces(plan, ticket, started):
            pieces[choice.index].append(piece)
        finished = [plan.shape.whole(choice, choice.joined(pieces[choice.index])) for choice in plan.choices]
        return envelope(plan.shape.whole_kind, plan.served.expert) | {
            "choices": finished,
            "usage": usage(plan.choices),
        }

    async def _stream(
        self, request: web.Request, plan: Plan, ticket: Ticket, started: float
    ) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        every = envelope(plan.shape.piece_kind, plan.served.expert)
        try:
            async for choice, piece in self._pieces(plan, ticket, started):
                if piece.text or piece.tokens or piece.finish_reason:
                    await write(
                        request, response, server_sent(every | {"choices": [plan.shape.piece(choice, piece)]})
                    )
            if plan.usage_in_stream:
                await write(
                    request, response, server_sent(every | {"choices": [], "usage": usage(plan.choices)})
                )
            await write(request, response, DONE)
        except EngineFailed:
            await write(request, response, server_sent(_FAILED.body))
        except asyncio.CancelledError:
            if not is_cut_off(request):
                raise  # The client has left.
            await write(request, response, server_sent(_STOPPING.body))
        finally:
            ticket.cancel()
        return response

    async def _pieces(
        self, plan: Plan, ticket: Ticket, started: float
    ) -> AsyncIterator[tuple[Choice, Piece]]:
        """Yield what the sequences add to their choices until all have ended; leaving early cancels the sequences."""
        metrics = plan.served.metrics
        metrics.read(sum(len(choice.prompt) for choice in plan.choices))
        first: float | None = None
        try:
            while not all(choice.ended for choice in plan.choices):
                index, event = await ticket.next()
                choice = plan.choices[index]
                if choice.ended:
                    continue
                if event == Finished("error"):
                    raise EngineFailed
                if first is None and isinstance(event, Generated):
                    first = time.monotonic()
                    metrics.first_token_seconds.observe(first - started)
                piece = choice.take(event)
                if choice.ended:
                    ticket.cancel(index)
                    metrics.finished(piece.finish_reason or "stop")
                yield choice, piece
            ended, tokens = time.monotonic(), sum(choice.completion_tokens for choice in plan.choices)
            metrics.latency_seconds.observe(ended - started)
            if first is not None and tokens > 1:
                metrics.token_seconds.observe((ended - first) / (tokens - 1))
        finally:
            ticket.cancel()
            metrics.generated(sum(choice.completion_tokens for choice in plan.choices))


def _capped(plan: Plan, most: str) -> Plan:
    """Return a plan that generates no more tokens than the gateway allows, which refuses a body that asks for more."""
    if not (most.isascii() and most.isdigit()):
        return plan
    capped = [replace(item, max_tokens=min(item.max_tokens, int(most))) for item in plan.generations]
    return replace(plan, generations=capped)


#: The key under which a request stores the Expert that answers it.
_SERVED = web.RequestKey("served", Served)

_FAILED = BadRequest(
    "the model failed while answering; the server's log says why", code="internal_error", status=500
)

_STOPPING = BadRequest(
    "the server stops, and the time for requests in flight is over: try again", code="stopping", status=503
)
