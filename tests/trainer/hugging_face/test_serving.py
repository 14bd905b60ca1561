"""An expert server of a base of transformers answers what transformers generates."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch
from aiohttp import web
from transformers import AutoModelForCausalLM, AutoTokenizer

from moe_formats.serve_config import ServeConfig
from moe_trainer import limits
from moe_trainer.hugging_face import directory
from moe_trainer.methods import checkpoint_format
from moe_trainer.serve import load

from .conftest import write_checkpoint
from .test_hostile_tokenizers import COMPARING

PROMPTS = ["The order is alpha, then", "def f(x):\n", "größer 漢字", "beta"]


class Client:
    """Posts bodies to a server."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(self, path: str, status: int = 200, **body: Any) -> Any:
        async with self._session.post(path, json={"model": "prose"} | body) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def health(self) -> Any:
        async with self._session.get("/health") as response:
            return await response.json()


@asynccontextmanager
async def running(store: Path, name: str, chat: str | None = None) -> AsyncIterator[Client]:
    """Serve a checkpoint; ``chat`` is its template, if it is not the usual one."""
    source = write_checkpoint(store / "source", name)
    if chat is not None:
        (source / "chat_template.jinja").write_text(chat)
    decoder, tokenizer = directory.load(source)
    digest = checkpoint_format.write(store, "a1", decoder, tokenizer, "{}")
    asked = {"expert": "prose", "revision": "prose-1", "artefact": {"path": "a1", "digest": digest}}
    server, engine = load(ServeConfig.model_validate(asked), store)
    engine.start()
    runner = web.AppRunner(server.application(), shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield Client(session)
    await runner.cleanup()
    engine.stop()


def generated(store: Path, ids: list[int], tokens: int) -> str:
    """Return what transformers makes of a prompt, one token at a time, without the tokens that never are."""
    theirs = AutoModelForCausalLM.from_pretrained(store / "a1").eval()
    made = theirs.generate(
        torch.tensor([ids]),
        max_new_tokens=tokens,
        do_sample=False,
        suppress_tokens=[0, 2, *range(290, 300)],
        use_cache=True,
        eos_token_id=1,
        pad_token_id=2,
    )[0, len(ids) :]
    text: str = AutoTokenizer.from_pretrained(store / "a1").decode(made, skip_special_tokens=True)
    return text


@pytest.mark.parametrize("name", ["llama", "qwen3-sliding", "qwen3-moe"])
async def test_answers_of_a_mixed_batch_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    async with running(tmp_path, name) as post:
        answers = await asyncio.gather(
            *(post("/v1/completions", prompt=prompt, temperature=0, max_tokens=12) for prompt in PROMPTS)
        )
        theirs = AutoTokenizer.from_pretrained(tmp_path / "a1")
        for prompt, answer in zip(PROMPTS, answers, strict=True):
            ids = [0, *theirs.encode(prompt, add_special_tokens=False)]
            assert answer["choices"][0]["text"] == generated(tmp_path, ids, 12)


async def test_a_chat_follows_the_checkpoints_template(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "How far?"}]
    async with running(tmp_path, "llama") as post:
        answer = await post("/v1/chat/completions", messages=messages, temperature=0, max_tokens=10)
        theirs = AutoTokenizer.from_pretrained(tmp_path / "a1")
        ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert answer["choices"][0]["message"]["content"] == generated(tmp_path, [0, *ids], 10)
        assert answer["usage"]["prompt_tokens"] == len(ids)


async def test_logprobs_of_a_prompt_are_those_of_transformers(tmp_path: Path) -> None:
    async with running(tmp_path, "qwen3-moe") as post:
        answer = await post("/v1/completions", prompt="alpha, beta", max_tokens=0, echo=True, logprobs=0)
    ids = [0, *AutoTokenizer.from_pretrained(tmp_path / "a1").encode("alpha, beta", add_special_tokens=False)]
    logits = AutoModelForCausalLM.from_pretrained(tmp_path / "a1").eval()(torch.tensor([ids])).logits[0, :-1]
    expected = logits.log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    found = answer["choices"][0]["logprobs"]
    assert found["token_logprobs"] == pytest.approx(expected.tolist(), abs=1e-4)
    assert "".join(found["tokens"]) == "alpha, beta"


async def test_health_is_answered_while_a_template_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROMPT_SECONDS", 1.0)
    async with running(tmp_path, "llama", chat=COMPARING) as post:
        messages = [{"role": "user", "content": "compare"}]
        slow = asyncio.create_task(post("/v1/chat/completions", status=400, messages=messages))
        longest = 0.0
        while not slow.done():
            # The server's own processor time: other processes of a busy machine change it little.
            started = time.thread_time()
            async with asyncio.timeout(10):
                assert (await post.health())["alive"]
            longest = max(longest, time.thread_time() - started)
        assert longest < 0.5
        error = (await slow)["error"]
        assert error["param"] == "messages" and "took longer than 1 s, which is the limit" in error["message"]
        messages = [{"role": "user", "content": "How far?"}]
        await post("/v1/chat/completions", messages=messages, max_tokens=1)


def test_presets_are_trained_evaluated_and_served_without_transformers() -> None:
    code = (
        "import sys, moe_trainer.train, moe_trainer.evaluate, moe_trainer.evaluation.scorer, moe_trainer.serve\n"
        "sys.exit('transformers' in sys.modules or 'tokenizers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=200).returncode == 0
