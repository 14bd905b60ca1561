"""A policy that changes under way: no request fails, and a bad one changes nothing."""

import asyncio


async def _load(gateway, stop, failures, seen):
    while not stop.is_set():
        async with gateway.post("/v1/completions", {"model": "pool", "prompt": "x"}) as response:
            body = await response.text()
            if response.status != 200:
                failures.append((response.status, body))
            else:
                seen.append(response.headers["x-moe-revision"])


async def test_a_handover_under_load_fails_no_request(world, digest):
    old = await world.expert("code", "code-1")
    gateway = await world.gateway(world.policy(old))
    stop, failures, seen = asyncio.Event(), [], []
    clients = [asyncio.create_task(_load(gateway, stop, failures, seen)) for _ in range(16)]
    async with asyncio.timeout(10):
        while len(seen) < 50:
            await asyncio.sleep(0.01)

    for number in (2, 3, 4):
        new = await world.expert("code", f"code-{number}")
        policy = world.policy(new)
        gateway.write(policy)
        await gateway.wait_for_policy(digest(policy))
        await old.stop()
        old = new
    stop.set()
    await asyncio.gather(*clients)

    assert failures == []
    assert set(seen) == {"code-1", "code-2", "code-3", "code-4"}
    assert seen[-1] == "code-4"


async def test_an_old_server_that_goes_before_the_policy_changes_costs_a_wait_and_no_failure(world):
    old = await world.expert("code", "code-1")
    new = await world.expert("code", "code-2")
    gateway = await world.gateway(world.policy(old))
    await old.stop()

    asked = asyncio.create_task(gateway.answer("/v1/completions", {"model": "pool", "prompt": "x"}))
    pinned = asyncio.create_task(gateway.answer("/v1/completions", {"model": "code", "prompt": "x"}))
    gateway.write(world.policy(new))

    for status, headers, _ in (await asked, await pinned):
        assert (status, headers["x-moe-revision"]) == (200, "code-2")
    assert "moe_gateway_retries_total" in await gateway.metrics()


async def test_a_stream_that_began_on_the_old_revision_ends_there(world, digest):
    hold = asyncio.Event()
    old = await world.expert("code", "code-1", hold=hold)
    new = await world.expert("code", "code-2")
    gateway = await world.gateway(world.policy(old))

    async with gateway.post("/v1/completions", {"model": "code", "prompt": "x", "stream": True}) as response:
        assert b"one" in await response.content.readline()
        policy = world.policy(new)
        gateway.write(policy)
        await gateway.wait_for_policy(digest(policy))
        stopping = asyncio.create_task(old.stop())
        hold.set()
        rest = await response.read()
        await stopping

    assert response.headers["x-moe-revision"] == "code-1"
    assert b"two" in rest and rest.endswith(b"data: [DONE]\n\n")


async def test_a_bad_policy_changes_nothing_and_is_reported(world, digest):
    expert = await world.expert("code")
    good = world.policy(expert)
    gateway = await world.gateway(good)
    bad = {
        "": "policy: Invalid JSON",
        '{"pool": "p", "strategy": "Distilled", "experts": []}': "experts: Tuple should have at least 1 item",
        good.to_json().replace("http://", "file://"): "experts.0.url",
        good.to_json().replace('"Posterior"', '"Best"'): "strategy: Input should be",
    }
    for text, reason in bad.items():
        gateway.write(text)
        async with asyncio.timeout(5):
            while reason not in str((await gateway.policy())["error"]):
                await asyncio.sleep(0.02)
        assert (await gateway.policy())["digest"] == digest(good)
        assert (await gateway.answer("/v1/completions", {"model": "pool", "prompt": "x"}))[0] == 200
    assert "moe_gateway_policy_current 0.0" in await gateway.metrics()

    gateway.write(good)
    async with asyncio.timeout(5):
        while (await gateway.policy())["error"] is not None:
            await asyncio.sleep(0.02)
    assert "moe_gateway_policy_current 1.0" in await gateway.metrics()


async def test_a_gateway_without_a_policy_is_not_ready_until_one_comes(world):
    expert = await world.expert("code")
    gateway = await world.gateway(None)
    async with gateway.client.get(gateway.url + "/readyz") as response:
        assert response.status == 503
    assert (await gateway.get("/healthz"))["status"] == "ok"
    assert (await gateway.answer("/v1/completions", {"model": "pool", "prompt": "x"}))[0] == 503

    gateway.write(world.policy(expert))
    async with asyncio.timeout(5):
        while (await gateway.get("/readyz"))["status"] != "ready":
            await asyncio.sleep(0.02)
    assert (await gateway.answer("/v1/completions", {"model": "pool", "prompt": "x"}))[0] == 200
