import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter

from moe_operator.cluster import listing
from moe_operator.cluster.api_client import ApiError, Listing
from moe_operator.cluster.listing import Lister
from moe_operator.cluster.resources import JOB, POD

#: Seconds after which something that was waited for never comes. It is never the pace of a test.
HANGS = 60


@pytest.fixture
def repairs():
    return Counter("repairs", "", registry=CollectorRegistry())


@pytest.fixture
def lister(api, cache, repairs):
    return Lister(api, cache, (), repairs)


def count(repairs):
    return repairs._value.get()


async def test_priming_reads_every_kind(api, cache, lister, make, expert, pool):
    for item in (expert("e"), pool("p"), make("Job", "j"), make("Pod", "x")):
        api.add(item)
    await lister.prime()
    for kind in ("Expert", "ExpertPool", "Job", "Pod"):
        assert len(list(cache.all(kind))) == 1, kind


async def test_priming_waits_until_the_kinds_are_installed(api, cache, lister, expert, monkeypatch):
    monkeypatch.setattr(listing, "RETRY_SECONDS", 0)
    api.add(expert("e"))
    api.fail_next = ApiError(404, "NotFound", "the server could not find the requested resource")
    await asyncio.wait_for(lister.prime(), HANGS)
    assert cache.get("Expert", "ns", "e")


async def test_a_sweep_drops_what_is_gone(api, cache, lister, make, repairs):
    cache.put(api.add(make("Job", "kept")))
    cache.put(api.add(make("Job", "gone")))
    del api.objects["Job", "ns", "gone"]
    await lister.sweep_once(JOB, "")
    assert [item["metadata"]["name"] for item in cache.all("Job")] == ["kept"]
    assert count(repairs) == 1


async def test_a_sweep_keeps_what_was_made_after_its_list(api, cache, lister, make, repairs):
    cache.put(make("Job", "new", version=api.server.version + 5))
    await lister.sweep_once(JOB, "")
    assert cache.get("Job", "ns", "new")
    assert count(repairs) == 0


async def test_a_sweep_reads_what_the_watch_missed(api, cache, lister, make, repairs):
    cache.put(api.add(make("Job", "old", spec={"suspend": True})))
    api.add(make("Job", "old", spec={"suspend": False}))
    api.add(make("Job", "unseen"))
    await lister.sweep_once(JOB, "")
    assert cache.get("Job", "ns", "old")["spec"]["suspend"] is False
    assert cache.get("Job", "ns", "unseen")
    assert count(repairs) == 2


async def test_a_sweep_of_what_is_known_changes_nothing(api, cache, lister, make, repairs):
    cache.put(api.add(make("Job", "a")))
    heard = []
    cache.listen(lambda old, new: heard.append(new))
    await lister.sweep_once(JOB, "")
    assert heard == []
    assert count(repairs) == 0


async def test_a_malformed_object_in_a_list_keeps_no_other_out(api, cache, lister, make, monkeypatch):
    good, bad = make("Pod", "good"), make("Pod", "bad")

    async def list_(resource, namespace="", *, metadata_only=False, keep):
        bad["metadata"] = {"name": "bad"}
        return Listing(
            [keep(item) for item in (bad, {"kind": "Pod"}, good)] if resource.kind == "Pod" else [], 9
        )

    monkeypatch.setattr(api, "list", list_)
    await lister.prime()
    assert [item["metadata"]["name"] for item in cache.all("Pod")] == ["good"]
    await lister.sweep_once(POD, "")
    assert [item["metadata"]["name"] for item in cache.all("Pod")] == ["good"]


async def test_a_sweep_that_fails_in_any_way_is_made_again(lister, monkeypatch):
    rounds = []

    async def sweep_once(resource, namespace):
        rounds.append(resource.kind)
        raise KeyError("metadata")

    monkeypatch.setattr(lister, "sweep_once", sweep_once)
    sweeping = asyncio.create_task(lister.sweep(0.001))
    async with asyncio.timeout(5):
        while len(rounds) < 3:
            await asyncio.sleep(0.001)
    assert not sweeping.done()
    sweeping.cancel()


FORBIDDEN = ApiError(403, "Forbidden", "experts is forbidden")


@pytest.fixture
def two(api, cache, repairs, expert, monkeypatch):
    """A Lister of namespaces a, where nothing may be read, and ns; `a` is free when its name is removed from the set."""
    closed = {"a"}
    real = api.list

    async def list_(resource, namespace="", **options):
        if namespace in closed:
            raise FORBIDDEN
        return await real(resource, namespace, **options)

    monkeypatch.setattr(api, "list", list_)
    monkeypatch.setattr(listing, "RETRY_SECONDS", 0)
    api.add(expert("e"))
    return Lister(api, cache, ("a", "ns"), repairs), closed


async def test_a_namespace_that_may_not_be_read_keeps_no_other_from_being_primed(two, cache, caplog):
    lister, _ = two
    await asyncio.wait_for(lister.prime(), HANGS)
    assert cache.get("Expert", "ns", "e")
    assert "namespace a" in caplog.text


async def test_while_no_namespace_may_be_read_priming_goes_on(two, cache):
    lister, closed = two
    closed.add("ns")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(lister.prime(), 0.05)
    closed.remove("ns")
    await asyncio.wait_for(lister.prime(), HANGS)
    assert cache.get("Expert", "ns", "e")


async def test_a_lost_namespace_is_named_and_the_sweep_of_the_others_is_complete(
    two, api, cache, make, caplog, monkeypatch
):
    lister, closed = two
    monkeypatch.setattr(lister, "_swept", -1000.0)
    api.add(make("Job", "missed"))
    await lister.sweep_all()
    assert cache.get("Job", "ns", "missed")
    assert lister.sweep_age() < 60
    assert "namespace a" in caplog.text
    caplog.clear()
    await lister.sweep_all()
    assert "namespace a" not in caplog.text, "it is told once"
    closed.clear()
    with pytest.raises(listing.NamespaceBack, match="namespace a"):
        await lister.sweep_all()


async def test_a_namespace_whose_list_fails_otherwise_leaves_the_sweep_incomplete(
    two, api, cache, make, monkeypatch
):
    lister, _ = two
    monkeypatch.setattr(lister, "_swept", -1000.0)

    async def sweep_once(resource, namespace):
        if namespace == "a":
            raise TimeoutError
        swept.append(resource.kind)

    swept = []
    monkeypatch.setattr(lister, "sweep_once", sweep_once)
    await lister.sweep_all()
    assert "Expert" in swept
    assert lister.sweep_age() > 60
