"""An expert server of a base of transformers answers what transformers generates."""

import asyncio
import subprocess
import sys
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
from moe_trainer.hugging_face import directory
from moe_trainer.methods import checkpoint_format
from moe_trainer.serve import load

from .conftest import write_checkpoint

PROMPTS = ["The order is alpha, then", "def f(x):\n", "größer 漢字", "beta"]


@asynccontextmanager
async def running(store: Path, name: str) -> AsyncIterator[Any]:
    """Serve a checkpoint; yields a function that posts a body to a path."""
    decoder, tokenizer = directory.load(write_checkpoint(store / "source", name))
    digest = checkpoint_format.write(store / "a1", decoder, tokenizer, "{}")
    asked = {"expert": "prose", "revision": "prose-1", "artefact": {"path": "a1", "digest": digest}}
    server, engine = load(ServeConfig.model_validate(asked), store)
    engine.start()
    runner = web.AppRunner(server.application(), shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:

        async def post(path: str, **body: Any) -> Any:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
            async with session.post(url, json={"model": "prose"} | body) as response:
                assert response.status == 200, await response.text()
                return await response.json()

        yield post
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


def test_presets_are_trained_evaluated_and_served_without_transformers() -> None:
    code = (
        "import sys, moe_trainer.train, moe_trainer.evaluate, moe_trainer.evaluation.scorer, moe_trainer.serve\n"
        "sys.exit('transformers' in sys.modules or 'tokenizers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=200).returncode == 0
