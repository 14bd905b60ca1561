"""The program as a container runs it: start by environment, SIGTERM, no request cut."""

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import aiohttp

from moe_formats.serve_config import ServeConfig
from moe_gateway.app import DRAIN_SECONDS
from moe_operator.builders import gateway as gateway_builder
from moe_operator.builders import server as server_builder
from moe_web.listener import LAME_DUCK_SECONDS, LAST_WORDS_SECONDS

PROGRAM = [sys.executable, "-c", "from moe_gateway.app import main; main()"]


@contextlib.asynccontextmanager
async def _started(world, policy, port, **variables):
    path = world.folder / "policy.json"
    path.write_text(policy.to_json())
    environment = os.environ | {
        "MOE_ROUTING_POLICY": str(path),
        "MOE_STORE": str(world.folder),
        "PORT": str(port),
        **variables,
    }
    process = await asyncio.create_subprocess_exec(*PROGRAM, env=environment)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client, asyncio.timeout(60):
            while not await _is_ready(client):
                assert process.returncode is None
                await asyncio.sleep(0.02)
            yield process, client
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _is_ready(client):
    try:
        async with client.get("/readyz") as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def test_a_stopping_gateway_finishes_streams_and_takes_no_more_requests(world, free_port):
    hold = asyncio.Event()
    policy = world.policy(await world.expert("code", hold=hold))
    async with _started(world, policy, free_port) as (process, client):
        ask = {"model": "code", "prompt": "x", "stream": True}
        async with client.post("/v1/completions", json=ask) as response:
            assert b"one" in await response.content.readline()
            process.send_signal(signal.SIGTERM)
            while await _is_ready(client):
                await asyncio.sleep(0.02)
            while True:  # It goes on taking requests until its peers know, then it does not.
                try:
                    async with client.get("/healthz") as health:
                        assert health.status == 200
                except aiohttp.ClientConnectionError:
                    break
                await asyncio.sleep(0.02)
            assert process.returncode is None
            hold.set()
            assert (await response.read()).endswith(b"data: [DONE]\n\n")
        assert await process.wait() == 0


async def test_a_gateway_that_stops_tells_clients_to_use_their_connections_no_more(world, free_port):
    hold = asyncio.Event()
    policy = world.policy(await world.expert("code", hold=hold))
    async with _started(world, policy, free_port) as (process, client):
        async with client.get("/readyz") as response:
            assert response.headers.get("Connection") != "close"
        process.send_signal(signal.SIGTERM)
        answers = set()
        with contextlib.suppress(aiohttp.ClientConnectionError):
            while True:
                async with client.get("/readyz") as response:
                    answers.add((response.status, response.headers.get("Connection")))
                await asyncio.sleep(0.01)
        assert (503, "close") in answers
        assert await process.wait() == 0


async def test_requests_that_outlast_the_drain_are_told_so_before_the_pod_is_killed(world):
    """aiohttp alone waits for its whole timeout twice and then drops the connection without a word."""
    expert = await world.expert("code", hold=asyncio.Event())
    gateway = await world.gateway(world.policy(expert))
    ask = {"model": "code", "prompt": "x"}
    whole = asyncio.create_task(gateway.answer("/v1/completions", ask))
    await expert.begun.wait()
    async with gateway.post("/v1/completions", ask | {"stream": True}) as response:
        assert b"one" in await response.content.readline()
        async with asyncio.timeout(10):
            await gateway.listener.stop(0.1)
        events = [event for event in (await response.text()).split("\n\n") if event.strip()]
    assert [json.loads(event.strip().removeprefix("data: "))["error"]["code"] for event in events] == [
        "stopping"
    ]
    status, headers, answer = await whole
    assert (status, answer["error"]["code"], headers["Retry-After"]) == (503, "stopping", "1")


def test_a_pod_has_time_for_all_that_happens_after_sigterm():
    spare = 2  # for the process to end
    after = LAME_DUCK_SECONDS + LAST_WORDS_SECONDS + spare
    assert after + DRAIN_SECONDS < gateway_builder.GRACE_SECONDS
    artefact = {"path": "a", "digest": "sha256:" + "0" * 64}
    config = ServeConfig(expert="e", revision="e-1", artefact=artefact)
    assert after + config.drain_seconds < server_builder.GRACE_SECONDS


async def test_the_operators_port_answers_until_the_last_request_is_done(world, free_port, another_port):
    hold = asyncio.Event()
    policy = world.policy(await world.expert("code", hold=hold))
    variables = {"METRICS_PORT": str(another_port)}
    async with _started(world, policy, free_port, **variables) as (process, client):
        async with client.post(
            "/v1/completions", json={"model": "code", "prompt": "x", "stream": True}
        ) as held:
            assert b"one" in await held.content.readline()
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(aiohttp.ClientConnectionError):
                while True:
                    async with client.get("/policy") as response:
                        assert response.status == 404
                    await asyncio.sleep(0.02)
            async with client.get(f"http://127.0.0.1:{another_port}/policy") as response:
                assert (await response.json())["pool"] == "pool"
            hold.set()
            await held.read()
        assert await process.wait() == 0


async def test_without_a_metrics_port_there_is_one_listener(world, free_port):
    async with _started(world, world.policy(await world.expert("code")), free_port) as (process, client):
        async with client.get("/metrics") as response:
            assert response.status == 404
        assert _listening(process.pid) == {free_port}


def _listening(pid):
    """The ports on which a process listens."""
    sockets = {
        os.readlink(link)
        for link in pathlib.Path(f"/proc/{pid}/fd").iterdir()
        if link.exists() or link.is_symlink()
    }
    rows = [line.split() for line in pathlib.Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {
        int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets
    }


def test_without_a_policys_path_it_says_what_to_set():
    environment = {name: value for name, value in os.environ.items() if name != "MOE_ROUTING_POLICY"}
    outcome = subprocess.run(
        PROGRAM, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert outcome.returncode == 1
    assert "set MOE_ROUTING_POLICY to the path of the routing policy" in outcome.stderr


async def test_it_stays_small(world, free_port):
    async with _started(world, world.policy(await world.expert("code")), free_port) as (process, client):
        for _ in range(50):
            async with client.post("/v1/completions", json={"model": "pool", "prompt": "x"}) as response:
                assert response.status == 200
        with open(f"/proc/{process.pid}/status") as status:
            resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    assert resident < 96 * 1024, f"{resident} KiB; the pod asks for 96 MiB"
