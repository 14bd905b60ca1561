"""The table of the Distilled strategy: loaded with its policy, and only if it is the one that is named."""

import asyncio
import base64
import os

import pytest

from moe_formats.format import digest_of
from moe_formats.ngram_table import TableFile, buckets_of
from moe_formats.routing_policy import DistilledTable

BUCKETS = 4096


def _table(**words):
    """Return the bytes of a table in which each Expert's word speaks for it."""
    rows = [bytearray(BUCKETS) for _ in words]
    for row, word in zip(rows, words.values(), strict=True):
        for bucket in buckets_of(word.encode(), BUCKETS):
            row[bucket] = 100
    weights = base64.b64encode(b"".join(rows)).decode()
    file = TableFile(
        experts=tuple(words),
        buckets=BUCKETS,
        bias=(0.0,) * len(words),
        scale=0.01,
        temperature=1.0,
        weights=weights,
    )
    return file.to_json().encode()


@pytest.fixture
async def experts(world):
    return await world.expert("mathematics"), await world.expert("code"), await world.expert("general")


@pytest.fixture
def distilled(world, experts):
    """Write a table into the store and return the policy that names it."""

    def write(data, **options):
        (world.folder / "tables").mkdir(exist_ok=True)
        (world.folder / "tables/t.json").write_bytes(data)
        table = DistilledTable(path="tables/t.json", digest=digest_of(data))
        return world.policy(
            *experts, **{"strategy": "Distilled", "fallback": "general", "table": table} | options
        )

    return write


async def test_prompts_go_where_the_table_says(world, distilled, experts):
    gateway = await world.gateway(distilled(_table(mathematics="theorem", code="import os")))
    for prompt, expert in (("the theorem of Noether", "mathematics"), ("import os, sys", "code")):
        status, headers, _ = await gateway.answer("/v1/completions", {"model": "pool", "prompt": prompt})
        assert (status, headers["x-moe-expert"], headers["x-moe-strategy"]) == (200, expert, "Distilled")
        assert 0.5 < float(headers["x-moe-confidence"]) <= 1
        route = (await gateway.answer("/v1/route", {"prompt": prompt}))[2]
        assert route["probabilities"].keys() == {"mathematics", "code"}
        assert f"give {expert} a probability of" in route["why"]
    assert all(not body.get("echo") for expert in experts for body in expert.requests)


async def test_a_new_table_takes_over_with_its_policy(world, distilled, digest):
    gateway = await world.gateway(distilled(_table(mathematics="theorem", code="import os")))
    swapped = distilled(_table(mathematics="import os", code="theorem"))
    gateway.write(swapped)
    await gateway.wait_for_policy(digest(swapped))
    _, headers, _ = await gateway.answer("/v1/completions", {"model": "pool", "prompt": "the theorem"})
    assert headers["x-moe-expert"] == "code"
    assert (await gateway.policy())["table"] == swapped.table.digest


async def test_a_policys_digest_is_reported_only_once_its_table_is_there(world, distilled, digest):
    good = distilled(_table(mathematics="theorem", code="import os"))
    gateway = await world.gateway(good)
    later = _table(mathematics="lemma", code="def")
    policy = good.model_copy(update={"table": DistilledTable(path="tables/2.json", digest=digest_of(later))})
    gateway.write(policy)
    async with asyncio.timeout(5):
        while (await gateway.policy())["error"] is None:
            await asyncio.sleep(0.02)
    state = await gateway.policy()
    assert state["digest"] == digest(good)
    assert state["error"] == "table: tables/2.json cannot be read: No such file or directory"
    assert (await gateway.answer("/v1/completions", {"model": "pool", "prompt": "theorem"}))[0] == 200

    (world.folder / "tables/2.json").write_bytes(later)
    await gateway.wait_for_policy(digest(policy))
    assert (await gateway.policy())["error"] is None


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"{}", "the policy names"), (b" " * 300_000, "the policy names"), (None, "is a directory")],
)
async def test_a_gateway_that_starts_beside_a_broken_table_serves_by_the_fallback_and_says_so(
    world, distilled, data, message
):
    policy = distilled(_table(mathematics="theorem", code="import os"))
    path = world.folder / "tables/t.json"
    path.unlink()
    if data is None:
        path.mkdir()
    else:
        path.write_bytes(data)
    gateway = await world.gateway(policy)

    state = await gateway.policy()
    assert state["digest"] is None and state["table"] is None
    assert message in state["error"].lower()
    _, headers, _ = await gateway.answer("/v1/completions", {"model": "pool", "prompt": "the theorem"})
    assert (headers["x-moe-expert"], headers["x-moe-strategy"]) == ("general", "Fallback")
    assert (await gateway.answer("/v1/completions", {"model": "code", "prompt": "x"}))[0] == 200

    renamed = policy.model_copy(update={"pool": "renamed"})
    gateway.write(renamed)
    async with asyncio.timeout(5):
        while (await gateway.policy())["pool"] != "renamed":
            await asyncio.sleep(0.02)


async def test_a_table_that_is_named_rightly_but_is_no_table_is_refused(world, distilled, digest):
    good = distilled(_table(mathematics="theorem", code="import os"))
    gateway = await world.gateway(good)
    gateway.write(distilled(b'{"version": 9}'))
    async with asyncio.timeout(5):
        while (await gateway.policy())["error"] is None:
            await asyncio.sleep(0.02)
    state = await gateway.policy()
    assert state["digest"] == digest(good)
    assert state["error"].startswith("table: tables/t.json: ")


async def test_a_table_cannot_lead_out_of_the_store(world, distilled, tmp_path_factory):
    data = _table(mathematics="theorem", code="import os")
    policy = distilled(data)
    outside = tmp_path_factory.mktemp("outside") / "t.json"
    outside.write_bytes(data)
    path = world.folder / "tables/t.json"
    path.unlink()
    path.symlink_to(outside)
    gateway = await world.gateway(policy)
    assert (await gateway.policy())["error"] == "table: tables/t.json leads out of the store"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("pipe", "table: tables/t.json is a named pipe (FIFO)"),
        ("folder outside", "table: tables/t.json leads out of the store"),
        ("circle", "table: tables/t.json leads through more than 40 links"),
    ],
)
async def test_nothing_in_the_place_of_a_table_stops_the_gateway(
    world, distilled, tmp_path_factory, kind, error
):
    data = _table(mathematics="theorem", code="import os")
    policy = distilled(data)
    path = world.folder / "tables/t.json"
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder outside":
            outside = tmp_path_factory.mktemp("outside")
            (outside / "t.json").write_bytes(data)
            path.parent.rmdir()
            path.parent.symlink_to(outside)
        case "circle":
            path.symlink_to("t.json")
    gateway = await world.gateway(policy)
    assert (await gateway.policy())["error"] == error
