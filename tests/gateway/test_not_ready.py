"""Experts that are promoted but have no ready server: they exist, and only the fallback takes their requests."""

import pytest


@pytest.fixture
async def three(world):
    """Code is at zero; by its own name or by the text, requests for it come nevertheless."""
    code = await world.expert("code", words=("def ",), ready=False)
    poetry = await world.expert("poetry", words=("def ", "rose"))
    return code, poetry, await world.expert("general")


async def test_it_exists_and_a_request_that_names_it_is_told_to_come_again(world, three):
    gateway = await world.gateway(world.policy(*three, fallback="general"))

    assert "code" in [model["id"] for model in (await gateway.get("/v1/models"))["data"]]
    for stream in (False, True):
        body = {"model": "code", "prompt": "def f():", "stream": stream}
        status, headers, answer = await gateway.answer("/v1/completions", body)
        assert (status, answer["error"]["code"]) == (503, "expert_not_ready")
        assert headers["Retry-After"] == "5"
        assert "no server of code is ready" in answer["error"]["message"]
    assert all(expert.served == [] for expert in three)


async def test_its_share_goes_to_the_fallback_and_not_to_the_second_best(world, three, monkeypatch):
    monkeypatch.setattr("moe_gateway.policy_file.PolicyFile._table", lambda policies, reference: _Table())
    gateway = await world.gateway(world.policy(*three, strategy="Distilled", fallback="general"))

    status, headers, answer = await gateway.answer("/v1/completions", {"model": "pool", "prompt": "def f():"})

    assert (status, answer["choices"][0]["text"]) == (200, "general-1")
    assert (headers["x-moe-expert"], headers["x-moe-strategy"]) == ("general", "Fallback")
    _, _, route = await gateway.answer("/v1/route", {"prompt": "def f():"})
    assert (route["expert"], route["why"]) == ("general", "no server of code is ready, so general takes it")


async def test_without_a_fallback_nobody_takes_its_share(world, three, monkeypatch):
    monkeypatch.setattr("moe_gateway.policy_file.PolicyFile._table", lambda policies, reference: _Table())
    gateway = await world.gateway(world.policy(*three, strategy="Distilled"))

    status, headers, answer = await gateway.answer("/v1/completions", {"model": "pool", "prompt": "def f():"})

    assert (status, answer["error"]["code"], headers["Retry-After"]) == (503, "expert_not_ready", "5")


async def test_posterior_asks_only_those_that_are_ready(world, three):
    code, poetry, _ = three
    gateway = await world.gateway(world.policy(*three))

    _, headers, _ = await gateway.answer("/v1/completions", {"model": "pool", "prompt": "def f():"})

    assert headers["x-moe-expert"] == "poetry"
    assert code.requests == [] and len(poetry.requests) == 2


async def test_a_conversation_returns_to_its_expert_once_that_is_ready_again(world, digest):
    poetry = await world.expert("poetry", words=("rose",))
    general = await world.expert("general")
    gateway = await world.gateway(world.policy(poetry, general, fallback="general"))
    header = {"headers": {"x-moe-conversation": "c1"}}
    begins = {"model": "pool", "prompt": "a rose"}
    assert (await gateway.answer("/v1/completions", begins, **header))[1]["x-moe-expert"] == "poetry"
    for ready, expert in ((False, "general"), (True, "poetry")):
        poetry.ready = ready
        policy = world.policy(poetry, general, fallback="general")
        gateway.write(policy)
        await gateway.wait_for_policy(digest(policy))
        undecided = {"model": "pool", "prompt": ""}
        assert (await gateway.answer("/v1/completions", undecided, **header))[1]["x-moe-expert"] == expert


async def test_nobody_is_ready(world):
    code = await world.expert("code", ready=False)
    gateway = await world.gateway(world.policy(code, fallback="code"))
    for model in ("pool", "code"):
        status, _, answer = await gateway.answer("/v1/completions", {"model": model, "prompt": "x"})
        assert (status, answer["error"]["code"]) == (503, "expert_not_ready")


class _Table:
    """A table that finds code most probable, then poetry."""

    def score(self, text):
        return {"code": 0.6, "poetry": 0.3, "general": 0.1}
