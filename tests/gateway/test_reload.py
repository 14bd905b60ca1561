"""A policy that changes under way: no request fails, and a bad one changes nothing."""

import asyncio
import os

import pytest


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


def mount(folder, number, **keys):
    """Mount keys as the kubelet does: links through `..data`, which is replaced at once."""
    (folder / f"..{number}").mkdir()
    for name, text in keys.items():
        (folder / f"..{number}" / name).write_text(text)
        if not (folder / name).is_symlink():
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data_tmp").symlink_to(f"..{number}")
    (folder / "..data_tmp").rename(folder / "..data")


async def test_policy_and_keys_are_read_through_the_links_of_a_mount(world, digest, tmp_path):
    expert = await world.expert("code")
    first, second = world.policy(expert), world.policy(expert, pool="renamed")
    gateway = await world.gateway(first, keys=tmp_path / "keys")
    mount(tmp_path, 1, **{"policy.json": second.to_json(), "keys": "sesame\n"})
    await gateway.wait_for_policy(digest(second))
    mount(tmp_path, 2, **{"policy.json": first.to_json(), "keys": "another\n"})
    await gateway.wait_for_policy(digest(first))
    for key, expected in (("sesame", 401), ("another", 200)):
        headers = {"Authorization": f"Bearer {key}"}
        answered = await gateway.answer("/v1/completions", {"model": "pool", "prompt": "x"}, headers=headers)
        assert answered[0] == expected


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pipe", "policy.json is a named pipe"),
        ("link out", "policy.json is a link that leads out"),
        ("folder", "policy.json is a directory"),
        ("too large", "policy.json has more than 4,194,304 bytes"),
    ],
)
async def test_whatever_takes_the_place_of_a_policy_changes_nothing_and_holds_nothing_up(
    world, digest, tmp_path, kind, said
):
    policy = world.policy(await world.expert("code"))
    gateway = await world.gateway(policy)
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_text(policy.model_copy(update={"pool": "evil"}).to_json())
    gateway.policy_path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(gateway.policy_path)
        case "link out":
            gateway.policy_path.symlink_to(outside)
        case "folder":
            gateway.policy_path.mkdir()
        case "too large":
            gateway.policy_path.write_text(policy.to_json() + " " * (4 << 20))
    async with asyncio.timeout(10):
        while said not in str((await gateway.policy())["error"]):
            await asyncio.sleep(0.02)
    assert (await gateway.policy())["digest"] == digest(policy)
    assert (await gateway.answer("/v1/completions", {"model": "pool", "prompt": "x"}))[0] == 200


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["pipe", "link out", "folder", "too large"])
async def test_whatever_takes_the_place_of_the_keys_admits_nobody_and_holds_nothing_up(world, tmp_path, kind):
    keys, outside = tmp_path / "keys", tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_text("sesame\n")
    match kind:
        case "pipe":
            os.mkfifo(keys)
        case "link out":
            keys.symlink_to(outside)
        case "folder":
            keys.mkdir()
        case "too large":
            keys.write_text("sesame\n" + "#" * (4 << 20))
    gateway = await world.gateway(world.policy(await world.expert("code")), keys=keys)
    headers = {"Authorization": "Bearer sesame"}
    answered = await gateway.answer("/v1/completions", {"model": "pool", "prompt": "x"}, headers=headers)
    assert answered[0] == 401
    assert (await gateway.get("/healthz"))["status"] == "ok"
