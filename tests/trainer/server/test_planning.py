"""Prompts are planned off the event loop, in processes that are stopped when they take too long."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from moe_formats.failure import JobError, TransientError
from moe_formats.serve_config import ServeConfig
from moe_trainer import limits
from moe_trainer.models.preset_config import preset
from moe_trainer.models.preset_model import Model, initialise
from moe_trainer.server.app import ExpertServer
from moe_trainer.server.engine import Engine
from moe_trainer.server.planning import Planning
from moe_trainer.server.requests import BadRequest
from moe_trainer.text.tokenizer import ByteTokenizer


class Slow(ByteTokenizer):
    """Reads prompts as slowly as they say."""

    def prompt_reader(self) -> Any:
        return self

    def prompt(self, said: Any) -> list[int]:
        words = said[-1][1]
        if words.startswith("refuse"):
            raise JobError("ChatTemplateUnsupported", "it takes more than 2 steps, which is the limit")
        if words.startswith("crash"):
            raise TransientError("Crashed", "the process ended")
        until = time.monotonic() + float(words)
        while time.monotonic() < until:
            pass
        return super().prompt([("user", "a")])


@asynccontextmanager
async def served(tokenizer: ByteTokenizer) -> AsyncIterator[Any]:
    """Serve a tiny model; yields a function that sends a request and returns status and answer."""
    model = Model(preset("tiny"))
    initialise(model, seed=0)
    model.eval()
    engine = Engine(model, max_context=128, max_batch=2, max_queue=50)
    artefact = {"path": "a1", "digest": "sha256:" + "0" * 64}
    config = ServeConfig.model_validate({"expert": "maths", "revision": "maths-1", "artefact": artefact})
    runner = web.AppRunner(ExpertServer(config, engine, tokenizer, 128).application(), shutdown_timeout=1)
    engine.start()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:

        async def send(path: str, body: Any = None) -> tuple[int, Any]:
            data = json.dumps(body) if body else None
            async with session.request("POST" if body else "GET", path, data=data) as response:
                return response.status, await response.json()

        yield send
    await runner.cleanup()
    engine.stop()


def chat(words: str) -> dict[str, Any]:
    return {"model": "maths", "max_tokens": 1, "messages": [{"role": "user", "content": words}]}


async def slowest(send: Any, seconds: float) -> float:
    """Ask for health for a while, and return the most processor time that this thread, the server's, took for an answer.

    Other processes of a busy machine change it little. Ten seconds until an answer would mean that another thread of this
    process keeps the interpreter for itself.
    """
    until, longest = time.monotonic() + seconds, 0.0
    while time.monotonic() < until:
        started = time.thread_time()
        async with asyncio.timeout(10):
            assert (await send("/health"))[0] == 200
        longest = max(longest, time.thread_time() - started)
        await asyncio.sleep(0.01)
    return longest


async def test_health_is_answered_while_slow_prompts_are_read() -> None:
    async with served(Slow()) as send:
        prompts = [asyncio.create_task(send("/v1/chat/completions", chat("0.6"))) for _ in range(4)]
        assert await slowest(send, 1.0) < 0.5
        assert [status for status, _ in await asyncio.gather(*prompts)] == [200] * 4


async def test_health_is_answered_while_a_prompt_of_megabytes_is_read() -> None:
    async with served(ByteTokenizer()) as send:
        prompts = [asyncio.create_task(send("/v1/chat/completions", chat("a" * 3_000_000))) for _ in range(4)]
        assert await slowest(send, 1.0) < 0.5
        for status, answer in await asyncio.gather(*prompts):
            assert status == 400 and answer["error"]["code"] == "context_length_exceeded"


async def test_a_prompt_that_cannot_be_read_is_an_error_of_its_field() -> None:
    async with served(Slow()) as send:
        status, answer = await send("/v1/chat/completions", chat("refuse"))
        assert status == 400 and answer["error"]["param"] == "messages"
        assert answer["error"]["message"] == "messages: it takes more than 2 steps, which is the limit"
        status, answer = await send("/v1/chat/completions", chat("crash"))
        assert status == 500 and answer["error"]["code"] == "internal_error"


async def test_who_waits_too_long_for_others_is_asked_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROMPT_SECONDS", 0.1)
    async with served(Slow()) as send:
        many = [asyncio.create_task(send("/v1/chat/completions", chat("0.5"))) for _ in range(10)]
        statuses = sorted(status for status, _ in await asyncio.gather(*many))
        assert statuses[:4] == [200] * 4 and set(statuses[4:]) <= {200, 429} and statuses[-1] == 429
        assert (await send("/v1/chat/completions", chat("0")))[0] == 200


async def test_a_client_that_leaves_makes_no_room_before_its_prompt_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "PROMPT_SECONDS", 0.1)
    planning = Planning(ByteTokenizer())

    begun, go_on = threading.Semaphore(0), threading.Event()

    def make(_: bytes) -> Any:
        begun.release()
        assert go_on.wait(60)

    left = [asyncio.create_task(planning.plan(make, b"")) for _ in range(4)]
    for _ in left:
        assert await asyncio.to_thread(begun.acquire, timeout=60)
    for task in left:
        task.cancel()
    with pytest.raises(BadRequest, match=r"4 other prompts have been worked on for 0\.1 s"):
        await planning.plan(make, b"")
    go_on.set()
    monkeypatch.setattr(limits, "PROMPT_SECONDS", 60)
    await planning.plan(make, b"")
    planning.close()
