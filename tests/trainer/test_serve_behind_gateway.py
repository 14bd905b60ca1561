"""The two programs of the data plane together: a gateway routes by what real expert servers say."""

import asyncio
import contextlib
import json
import math

import aiohttp
import pytest
import torch
from aiohttp import web

from moe_formats.routing_policy import RoutedExpert, RoutingPolicy
from moe_formats.serve_config import ServeConfig
from moe_gateway.app import open_gateway
from moe_trainer.methods import checkpoint_format
from moe_trainer.models.preset_config import ModelConfig
from moe_trainer.models.preset_model import Model, initialise
from moe_trainer.serve import load
from moe_trainer.text.tokenizer import BOS, EOS, PAD, ByteTokenizer
from moe_web.listener import Listener

SMALL = ModelConfig(
    vocab_size=259,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    num_experts=2,
    num_experts_per_tok=1,
    moe_intermediate_size=32,
    max_position_embeddings=384,
    bos_token_id=BOS,
    eos_token_id=EOS,
    pad_token_id=PAD,
)
TEXTS = {
    "mathematics": "for all x in X there is a y with f(y) = x. ",
    "speeches": "My fellow citizens, the state of the union is ",
}


def _trained(text, seed):
    """Return a model that has seen one text a few times: enough to prefer it."""
    model = Model(SMALL)
    initialise(model, seed)
    ids = torch.tensor([[BOS, *(text * 4).encode()]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(ids)[0, :-1], ids[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@contextlib.asynccontextmanager
async def _served(app):
    listener = Listener(app, host="127.0.0.1", port=0)
    await listener.start()
    yield f"http://127.0.0.1:{listener.port}"
    await listener.stop(5)


@pytest.fixture
async def pool(tmp_path):
    """Two trained Experts behind a gateway that asks them: its URL, a client, and the models."""
    models = {name: _trained(text, seed) for seed, (name, text) in enumerate(TEXTS.items())}
    async with contextlib.AsyncExitStack() as stack:
        routed = []
        for name, model in models.items():
            digest = checkpoint_format.write(tmp_path, name, model, ByteTokenizer(), "{}")
            config = ServeConfig(
                expert=name, revision=f"{name}-1", artefact={"path": name, "digest": digest}, max_batch=4
            )
            server, engine = load(config, tmp_path)
            engine.start()
            stack.callback(engine.stop)
            url = await stack.enter_async_context(_served(server.application()))
            routed.append(RoutedExpert(name=name, revision=config.revision, digest=digest, url=url))
        policy = RoutingPolicy(pool="pool", strategy="Posterior", experts=tuple(routed))
        path = tmp_path / "policy.json"
        path.write_text(policy.to_json())
        gateway = await stack.enter_async_context(open_gateway(path, tmp_path))
        app = web.Application()
        app.add_routes(gateway.routes())
        url = await stack.enter_async_context(_served(app))
        client = await stack.enter_async_context(aiohttp.ClientSession(url))
        yield client, models


def _bits_per_byte(model, text):
    ids = torch.tensor([[BOS, *text.encode()]])
    with torch.inference_mode():
        return torch.nn.functional.cross_entropy(model(ids)[0, :-1], ids[0, 1:]).item() / math.log(2)


async def test_posterior_goes_by_the_likelihoods_that_the_servers_compute(pool):
    client, models = pool
    for name, text in TEXTS.items():
        async with client.post("/v1/route", json={"prompt": text}) as response:
            route = await response.json()
        assert route["expert"] == name
        for other, model in models.items():
            assert route["bitsPerByte"][other] == pytest.approx(_bits_per_byte(model, text), rel=1e-4)


async def test_a_stream_passes_through_with_the_experts_text(pool):
    client, _ = pool
    ask = {"model": "pool", "prompt": TEXTS["speeches"], "max_tokens": 20, "temperature": 0}
    async with client.post("/v1/completions", json=ask) as response:
        whole = await response.json()
        assert response.headers["x-moe-revision"] == "speeches-1"
    async with client.post("/v1/completions", json=ask | {"stream": True}) as response:
        events = (await response.text()).split("\n\n")
    assert events[-2] == "data: [DONE]"
    pieces = [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events[:-2]]
    assert "".join(pieces) == whole["choices"][0]["text"]


async def test_many_conversations_at_once_are_all_answered(pool):
    client, _ = pool

    async def chat(name):
        messages = [{"role": "user", "content": TEXTS[name]}]
        body = {"model": "pool", "messages": messages, "max_tokens": 5}
        async with client.post("/v1/chat/completions", json=body) as response:
            return response.status, response.headers["x-moe-expert"]

    names = list(TEXTS) * 10
    answers = await asyncio.gather(*(chat(name) for name in names))
    assert answers == [(200, name) for name in names]
