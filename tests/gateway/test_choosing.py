"""Which Expert a request goes to, and what the gateway says about it."""

import asyncio


async def test_the_pools_name_routes_to_the_expert_that_codes_the_prompt_best(world):
    maths = await world.expert("mathematics", words=("theorem",))
    code = await world.expert("code", words=("def ",))
    gateway = await world.gateway(world.policy(maths, code))

    status, headers, answer = await gateway.answer(
        "/v1/completions", {"model": "pool", "prompt": "def main():", "max_tokens": 4}
    )

    assert (status, answer["choices"][0]["text"]) == (200, "code-1")
    assert headers["x-moe-expert"] == "code"
    assert headers["x-moe-revision"] == "code-1"
    assert headers["x-moe-strategy"] == "Posterior"
    assert headers["x-moe-policy"] == (await gateway.policy())["digest"]
    assert float(headers["x-moe-confidence"]) > 0.99
    assert [body["max_tokens"] for body in code.served] == [4]
    assert maths.served == []


async def test_an_experts_name_pins_it_and_asks_nobody_else(world):
    maths = await world.expert("mathematics", words=("theorem",))
    code = await world.expert("code", words=("def ",))
    gateway = await world.gateway(world.policy(maths, code))

    _, headers, answer = await gateway.answer(
        "/v1/completions", {"model": "mathematics", "prompt": "def main():"}
    )

    assert answer["choices"][0]["text"] == "mathematics-1"
    assert headers["x-moe-strategy"] == "Pinned"
    assert "x-moe-confidence" not in headers
    assert code.requests == []


async def test_an_unknown_model_is_a_404_that_lists_what_there_is(world):
    gateway = await world.gateway(world.policy(await world.expert("code")))

    status, _, answer = await gateway.answer("/v1/completions", {"model": "gpt-4", "prompt": "x"})

    assert status == 404
    assert answer["error"]["code"] == "model_not_found"
    assert answer["error"]["message"].endswith("there are: pool, code")


async def test_models_are_the_pool_and_its_experts(world):
    gateway = await world.gateway(world.policy(await world.expert("code"), await world.expert("general")))

    models = await gateway.get("/v1/models")

    assert [model["id"] for model in models["data"]] == ["pool", "code", "general"]
    assert all(model["object"] == "model" for model in models["data"])


async def test_route_explains_without_asking_for_text(world):
    maths = await world.expert("mathematics", words=("theorem",))
    code = await world.expert("code", words=("def ",))
    gateway = await world.gateway(world.policy(maths, code))

    status, _, answer = await gateway.answer("/v1/route", {"prompt": "the theorem says"})

    assert status == 200
    assert (answer["expert"], answer["strategy"]) == ("mathematics", "Posterior")
    assert sum(answer["probabilities"].values()) == 1
    assert answer["confidence"] == answer["probabilities"]["mathematics"]
    assert round(answer["bitsPerByte"]["code"], 1) == 3.7
    assert answer["complexity"] is None and "complexity" in answer["absent"]
    assert "mathematics codes the end of the prompt" in answer["why"]
    assert maths.served == code.served == []


async def test_an_expert_that_does_not_answer_in_time_does_not_count(world):
    maths = await world.expert("mathematics", words=("theorem",))
    code = await world.expert("code", words=("theorem", "def "))

    async def never(request):
        await asyncio.Event().wait()

    code.trouble = never
    gateway = await world.gateway(world.policy(maths, code, posterior_timeout_seconds=1))

    _, _, answer = await gateway.answer("/v1/route", {"prompt": "the theorem"})

    assert answer["probabilities"] == {"mathematics": 1.0}
    assert "did not answer in time: code" in answer["why"]


async def test_the_fallback_takes_what_cannot_be_decided(world):
    general = await world.expert("general")
    code = await world.expert("code")
    gateway = await world.gateway(world.policy(code, general, strategy="Distilled", fallback="general"))

    _, headers, answer = await gateway.answer("/v1/completions", {"model": "pool", "prompt": "def"})
    _, _, route = await gateway.answer("/v1/route", {"prompt": "def"})

    assert answer["choices"][0]["text"] == "general-1"
    assert headers["x-moe-strategy"] == "Fallback"
    assert "no table has been distilled" in route["why"]
    assert route["confidence"] is None and "confidence" in route["absent"]


async def test_a_chat_is_routed_by_what_the_user_says(world):
    maths = await world.expert("mathematics", words=("theorem",))
    code = await world.expert("code", words=("def ",))
    gateway = await world.gateway(world.policy(maths, code))
    messages = [
        {"role": "system", "content": "You never write def main()"},
        {"role": "user", "content": [{"type": "text", "text": "prove the theorem"}]},
    ]

    _, headers, _ = await gateway.answer("/v1/chat/completions", {"model": "pool", "messages": messages})

    assert headers["x-moe-expert"] == "mathematics"
    assert maths.served[0]["messages"] == messages
    assert maths.served[0]["model"] == "mathematics"


async def test_a_conversation_stays_with_its_expert_within_the_margin(world):
    maths = await world.expert("mathematics", words=("theorem",))
    code = await world.expert("code", words=("def ",))
    gateway = await world.gateway(world.policy(maths, code, stickiness_margin=1))
    turns = [{"role": "user", "content": "the theorem"}]
    await gateway.answer("/v1/chat/completions", {"model": "pool", "messages": turns})
    turns += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "now def f():"}]
    turns = [turns[0] | {"content": "the theorem"}, *turns[1:]]

    _, headers, _ = await gateway.answer("/v1/chat/completions", {"model": "pool", "messages": turns})
    assert headers["x-moe-expert"] == "mathematics"

    first = {"x-moe-conversation": "c1"}
    ask = {"model": "pool", "prompt": "def f():"}
    _, headers, _ = await gateway.answer("/v1/completions", ask, headers=first)
    assert headers["x-moe-expert"] == "code"
    _, headers, _ = await gateway.answer("/v1/completions", ask | {"prompt": "the theorem"}, headers=first)
    assert (headers["x-moe-expert"], headers["x-moe-strategy"]) == ("code", "Conversation")
    _, headers, _ = await gateway.answer("/v1/completions", ask | {"prompt": "the theorem"})
    assert headers["x-moe-expert"] == "mathematics"
