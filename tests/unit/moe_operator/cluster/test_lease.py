import pytest

from moe_operator.cluster.api_client import ApiError
from moe_operator.cluster.lease import Lease, LeaseLost, LeaseNotRenewed


class Clock:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lease(clock):
    def new(holder):
        return Lease(namespace="ns", name="moe-operator", holder=holder, seconds=15, clock=clock)

    return new


def holder_of(api):
    return api.objects["Lease", "ns", "moe-operator"]["spec"]["holderIdentity"]


async def test_the_first_takes_it_and_the_second_waits(api, lease):
    a, b = lease("a"), lease("b")
    assert await a.try_once(api)
    assert not await b.try_once(api)
    a.check()
    with pytest.raises(LeaseNotRenewed):
        b.check()


async def test_it_changes_hands_only_after_its_time_without_a_sign_of_life(api, lease, clock):
    a, b = lease("a"), lease("b")
    await a.try_once(api)
    assert not await b.try_once(api)
    clock.now += 14
    assert not await b.try_once(api)
    await a.try_once(api)  # A sign of life: the time starts over.
    clock.now += 2
    assert not await b.try_once(api)
    clock.now += 16
    assert await b.try_once(api)
    assert holder_of(api) == "b"


async def test_a_holder_has_stopped_writing_before_another_may_start(api, lease, clock):
    a, b = lease("a"), lease("b")
    await a.try_once(api)
    await b.try_once(api)
    for _ in range(30):
        clock.now += 1
        took_over = await b.try_once(api)
        if took_over:
            break
        a_may_write = clock.now <= 1010
        if not a_may_write:
            with pytest.raises(LeaseNotRenewed):
                a.check()
    assert took_over
    with pytest.raises(LeaseNotRenewed):
        a.check()


async def test_a_paused_holder_finds_that_it_lost_it(api, lease, clock):
    a, b = lease("a"), lease("b")
    await a.try_once(api)
    await b.try_once(api)
    clock.now += 16
    await b.try_once(api)
    with pytest.raises(LeaseLost, match="b"):
        await a.try_once(api)


async def test_it_goes_on_after_an_outage_if_nobody_took_it(api, lease, clock):
    a = lease("a")
    await a.try_once(api)
    clock.now += 60
    api.fail_next = ApiError(503, "ServiceUnavailable", "down")
    assert not await a.try_once(api)
    with pytest.raises(LeaseNotRenewed):
        a.check()
    assert await a.try_once(api)
    a.check()


async def test_two_that_try_at_once_do_not_both_get_it(api, lease, clock):
    a, b, c = lease("a"), lease("b"), lease("c")
    await a.try_once(api)
    await b.try_once(api)
    await c.try_once(api)
    clock.now += 16
    assert [await b.try_once(api), await c.try_once(api)] == [True, False]


async def test_a_restarted_container_of_the_pod_takes_it_over_at_once(api, lease):
    await lease("pod-1").try_once(api)
    assert await lease("pod-1").try_once(api)


async def test_a_released_lease_is_free_at_once(api, lease):
    a, b = lease("a"), lease("b")
    await a.try_once(api)
    await a.release(api)
    with pytest.raises(LeaseNotRenewed):
        a.check()
    assert await b.try_once(api)
    assert api.objects["Lease", "ns", "moe-operator"]["spec"]["leaseTransitions"] == 1


@pytest.mark.parametrize(
    ("metadata", "whose"),
    [
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, "Helm"),
        (
            {"ownerReferences": [{"kind": "Deployment", "name": "web", "uid": "w", "controller": True}]},
            "Deployment web",
        ),
    ],
)
async def test_a_lease_of_another_program_is_never_taken(api, lease, clock, caplog, metadata, whose):
    manifest = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"holderIdentity": "web-1"}}
    before = api.add({**manifest, "metadata": {"namespace": "ns", "name": "moe-operator", **metadata}})
    a = lease("a")
    for _ in range(3):
        assert not await a.try_once(api)
        clock.now += 60
    with pytest.raises(LeaseNotRenewed):
        a.check()
    assert api.objects["Lease", "ns", "moe-operator"] == before
    assert [record.getMessage().count(f"belongs to {whose}") for record in caplog.records] == [1]
    api.server.delete(("Lease", "ns", "moe-operator"))
    assert await a.try_once(api)
    assert await a.try_once(api), "its own label does not make it another program's"


async def test_a_lease_of_an_older_operator_is_taken_over(api, lease, clock):
    """It has no label."""
    manifest = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"holderIdentity": "old"}}
    api.add({**manifest, "metadata": {"namespace": "ns", "name": "moe-operator"}})
    a = lease("a")
    assert not await a.try_once(api)
    clock.now += 16
    assert await a.try_once(api)


async def test_who_holds_the_lease_is_said_while_it_is_waited_for(api, lease):
    a, b = lease("a"), lease("b")
    await a.try_once(api)
    await b.try_once(api)
    assert a.waits == ""
    assert b.waits == "the Lease ns/moe-operator is held by a"
