"""Passes an Expert's answer on to the client, as a whole or as a stream."""

import asyncio
from functools import partial

import aiohttp
from aiohttp import web

from moe_formats.routing_policy import RoutedExpert
from moe_gateway.backends import (
    PATIENCE_SECONDS,
    Answer,
    Asking,
    Backends,
    GivenUp,
    Question,
    TooSlow,
    Unreachable,
)
from moe_gateway.decision import Decision
from moe_gateway.metrics import Metrics
from moe_gateway.openai import ApiError, Call
from moe_gateway.policy_file import LoadedPolicy, PolicyFile
from moe_gateway.record import Record
from moe_gateway.strategies.context import in_its_place
from moe_web.event_stream import EventTooLarge, WholeEvents, event
from moe_web.listener import is_cut_off, write

#: Seconds that a routed request tries to reach a replica of its Expert before it goes to the fallback.
PATIENCE_BEFORE_FALLBACK_SECONDS = 2.0
#: Seconds after which a client should ask again for an Expert of which no server is ready.
NOT_READY_RETRY_SECONDS = 5

#: The key under which a request has its Record.
RECORD = web.RequestKey("record", Record)


class Proxy:
    """Sends a request to the Expert that was chosen for it, and the answer back."""

    def __init__(self, backends: Backends, policies: PolicyFile, metrics: Metrics) -> None:
        """Reach servers through `backends`; a retry uses the policy that `policies` has by then."""
        self._backends = backends
        self._policies = policies
        self._metrics = metrics

    async def forward(
        self, request: web.Request, call: Call, decision: Decision, loaded: LoadedPolicy, asking: Asking
    ) -> web.StreamResponse:
        """Return the Expert's answer, or the fallback's if no server answers a routed request.

        Raises ApiError: 503 if no server is ready or answers, 504 if one sends nothing for too long.
        """
        request[RECORD].aimed_at = decision.expert
        instead = in_its_place(loaded.policy, decision, f"no server of {decision.expert} answers")
        if not self._newest(decision.expert, loaded).is_ready:
            if instead is not None:
                return await self.forward(request, call, instead, loaded, asking)
            raise _not_ready(decision.expert)
        patience = PATIENCE_SECONDS if instead is None else PATIENCE_BEFORE_FALLBACK_SECONDS
        try:
            with self._metrics.counts.under_way(decision.expert):
                return await self._forward_to(request, call, decision, loaded, asking, patience)
        except GivenUp as error:
            raise _unreachable(error, again=False) from None
        except Unreachable as error:
            if instead is not None:
                return await self.forward(request, call, instead, loaded, asking)
            raise _unreachable(error, again=True) from None
        except TooSlow as error:
            raise ApiError(504, str(error), kind="server_error", code="timeout") from None

    async def _forward_to(
        self,
        request: web.Request,
        call: Call,
        decision: Decision,
        loaded: LoadedPolicy,
        asking: Asking,
        patience: float,
    ) -> web.StreamResponse:
        name, limits, record = decision.expert, loaded.policy.limits, request[RECORD]
        question = Question(
            request.path,
            call.body_for(name),
            whole=not call.stream,
            read_seconds=limits.timeout_seconds,
            most_tokens=limits.max_tokens,
        )
        target = partial(self._newest, name, loaded)
        async with self._backends.ask(target, question, asking, patience_seconds=patience) as answer:
            record.answering(name, answer.expert.revision, decision.strategy, stream=call.stream)
            self._metrics.first_byte_seconds.labels(name).observe(record.first_byte_seconds or 0)
            headers = _headers(answer, decision, loaded)
            if call.stream:
                return await _stream(request, answer, headers)
            return web.Response(body=answer.first, status=answer.response.status, headers=headers)

    def _newest(self, name: str, loaded: LoadedPolicy) -> RoutedExpert:
        """Return the Expert's entry in the current policy, or else in the policy that it was chosen by."""
        current = self._policies.current or loaded
        expert = current.policy.expert(name) or loaded.policy.expert(name)
        assert expert is not None, "a decision names an Expert of the policy that it was made by"
        return expert


def _not_ready(expert: str) -> ApiError:
    return ApiError(
        503,
        f"no server of {expert} is ready now: it is starting, restarting or scaled to zero. Try again later",
        kind="server_error",
        code="expert_not_ready",
        retry_after=NOT_READY_RETRY_SECONDS,
    )


def _unreachable(error: Unreachable, *, again: bool) -> ApiError:
    return ApiError(
        503,
        str(error),
        kind="server_error",
        code="expert_unreachable",
        retry_after=1 if again else None,
        may_retry=again,
    )


def _headers(answer: Answer, decision: Decision, loaded: LoadedPolicy) -> dict[str, str]:
    headers = {
        "Content-Type": answer.response.headers.get("Content-Type", "application/json"),
        "x-moe-expert": decision.expert,
        "x-moe-revision": answer.expert.revision,
        "x-moe-strategy": decision.strategy,
        "x-moe-policy": loaded.digest,
    }
    if decision.confidence is not None:
        headers["x-moe-confidence"] = f"{decision.confidence:.4f}"
    if "Retry-After" in answer.response.headers:
        headers["Retry-After"] = answer.response.headers["Retry-After"]
    return headers


async def _stream(request: web.Request, answer: Answer, headers: dict[str, str]) -> web.StreamResponse:
    """Pass whole events on as they arrive; an answer that breaks off ends with an error event, without [DONE]."""
    response = web.StreamResponse(
        status=answer.response.status, headers=headers | {"Cache-Control": "no-cache"}
    )
    await response.prepare(request)
    events = WholeEvents()
    try:
        await _pass_on(request, response, events.take(answer.first))
        async for chunk in answer.response.content.iter_any():
            await _pass_on(request, response, events.take(chunk))
        await _pass_on(request, response, events.rest())
    except aiohttp.SocketTimeoutError:
        await _break_off(request, response, 504, "timeout", "the answer stalled for too long")
    except EventTooLarge:
        await _break_off(request, response, 502, "expert_lost", "the answer has an event that is too large")
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
        if request.transport is None:
            raise ConnectionResetError("the client has left") from None
        message = f"the answer broke off: {error or type(error).__name__}"
        await _break_off(request, response, 502, "expert_lost", message)
    except asyncio.CancelledError:
        if not is_cut_off(request):
            raise  # The client has left.
        message = "the gateway stops, and the time for answers is over"
        await _break_off(request, response, 503, "stopping", message)
    return response


async def _pass_on(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    if data:
        await write(request, response, data)


async def _break_off(
    request: web.Request, response: web.StreamResponse, outcome: int, code: str, message: str
) -> None:
    """End a stream with an error event, and record how it ended: its status has been sent long before."""
    request[RECORD].fails(outcome, code)
    await write(request, response, event(ApiError(outcome, message, kind="server_error", code=code).body))
