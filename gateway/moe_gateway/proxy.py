"""Passing an Expert's answer on to the client: whole, or as the stream it is."""

import json
import time

import aiohttp
from aiohttp import web

from moe_gateway.backends import Answer, Backends, Question, TooSlow, Unreachable
from moe_gateway.decision import Decision
from moe_gateway.metrics import Metrics
from moe_gateway.openai import ApiError, Call
from moe_gateway.policy_file import LoadedPolicy, PolicyFile
from moe_gateway.routing_policy import RoutedExpert


class Proxy:
    """Sends a decided request to its Expert and the answer back."""

    def __init__(self, backends: Backends, policies: PolicyFile, metrics: Metrics) -> None:
        """Ask servers through `backends`; a retry follows what `policies` says by then."""
        self._backends = backends
        self._policies = policies
        self._metrics = metrics

    async def forward(
        self, request: web.Request, call: Call, decision: Decision, loaded: LoadedPolicy, started: float
    ) -> web.StreamResponse:
        """Return the Expert's answer; raises ApiError (503, 504) where there is none.

        `started` is the monotonic time at which the request came.
        """
        question = Question(
            request.path,
            call.body_for(decision.expert),
            whole=not call.stream,
            read_seconds=loaded.policy.limits.timeout_seconds,
        )
        try:
            async with self._backends.ask(lambda: self._newest(decision.expert, loaded), question) as answer:
                self._metrics.first_byte_seconds.labels(decision.expert).observe(time.monotonic() - started)
                headers = _headers(answer, decision, loaded)
                response: web.StreamResponse
                if call.stream:
                    response = await _stream(request, answer, headers)
                else:
                    response = web.Response(body=answer.first, status=answer.response.status, headers=headers)
                code = str(answer.response.status)
        except Unreachable as error:
            raise ApiError(
                503, str(error), kind="server_error", code="expert_unreachable", retry_after=1
            ) from None
        except TooSlow as error:
            raise ApiError(504, str(error), kind="server_error", code="timeout") from None
        self._metrics.requests.labels(decision.expert, decision.strategy, code).inc()
        self._metrics.seconds.labels(decision.expert).observe(time.monotonic() - started)
        return response

    def _newest(self, name: str, loaded: LoadedPolicy) -> RoutedExpert:
        """Return the Expert as the policy of this instant has it, else as it was when it was chosen."""
        current = self._policies.current or loaded
        expert = current.policy.expert(name) or loaded.policy.expert(name)
        assert expert is not None, "decisions name Experts of the policy they were made by"
        return expert


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
    """Pass bytes on as they come; an answer that breaks off ends with an error event, without [DONE]."""
    response = web.StreamResponse(
        status=answer.response.status, headers=headers | {"Cache-Control": "no-cache"}
    )
    await response.prepare(request)
    await response.write(answer.first)
    try:
        async for chunk in answer.response.content.iter_any():
            await response.write(chunk)
    except aiohttp.SocketTimeoutError:
        await _write_error(response, "the answer stalled for too long", "timeout")
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
        if request.transport is None:
            return response  # It is the client that has gone.
        await _write_error(response, f"the answer broke off: {error or type(error).__name__}", "expert_lost")
    await response.write_eof()
    return response


async def _write_error(response: web.StreamResponse, message: str, code: str) -> None:
    body = ApiError(502, message, kind="server_error", code=code).body
    await response.write(b"\n\ndata: " + json.dumps(body).encode() + b"\n\n")
