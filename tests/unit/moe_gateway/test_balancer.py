"""Choosing a replica."""

from collections import Counter

from moe_gateway.balancer import RESOLUTION_SECONDS, SUSPICION_SECONDS, Balancer, Replica


class _Names:
    """A resolver whose answers and clock the test sets."""

    def __init__(self, *addresses):
        self.addresses = addresses
        self.asked = 0
        self.now = 0.0

    async def resolve(self, host, port):
        self.asked += 1
        return self.addresses

    def balancer(self):
        return Balancer(resolve=self.resolve, clock=lambda: self.now)


async def test_idle_replicas_take_turns():
    balancer = _Names("10.0.0.1", "10.0.0.2", "10.0.0.3").balancer()
    picked = Counter([(await balancer.pick("code", 80)).address for _ in range(30)])
    assert picked == {"10.0.0.1": 10, "10.0.0.2": 10, "10.0.0.3": 10}


async def test_the_least_loaded_replica_is_next():
    balancer = _Names("10.0.0.1", "10.0.0.2").balancer()
    with balancer.in_flight(Replica("10.0.0.1", 80)):
        assert {(await balancer.pick("code", 80)).address for _ in range(5)} == {"10.0.0.2"}
        with balancer.in_flight(Replica("10.0.0.2", 80)), balancer.in_flight(Replica("10.0.0.2", 80)):
            assert {(await balancer.pick("code", 80)).address for _ in range(5)} == {"10.0.0.1"}
    assert {(await balancer.pick("code", 80)).address for _ in range(5)} == {"10.0.0.1", "10.0.0.2"}


async def test_a_name_is_resolved_again_when_its_answer_is_old():
    names = _Names("10.0.0.1")
    balancer = names.balancer()
    await balancer.pick("code", 80)
    await balancer.pick("code", 80)
    assert names.asked == 1
    names.addresses, names.now = ("10.0.0.2",), RESOLUTION_SECONDS
    assert (await balancer.pick("code", 80)).address == "10.0.0.2"


async def test_a_name_without_addresses_is_asked_every_time():
    names = _Names()
    balancer = names.balancer()
    assert await balancer.pick("code", 80) is None
    names.addresses = ("10.0.0.1",)
    assert (await balancer.pick("code", 80)).address == "10.0.0.1"


async def test_a_replica_that_failed_is_the_last_choice_for_a_while_and_its_name_resolved_anew():
    names = _Names("10.0.0.1", "10.0.0.2")
    balancer = names.balancer()
    failed = await balancer.pick("code", 80)
    balancer.failed(failed)
    assert {await balancer.pick("code", 80) for _ in range(5)} == {
        Replica(address, 80) for address in names.addresses
    } - {failed}
    assert names.asked == 2
    names.addresses = (failed.address,)
    names.now = RESOLUTION_SECONDS
    assert await balancer.pick("code", 80) == failed
    names.addresses, names.now = ("10.0.0.1", "10.0.0.2"), SUSPICION_SECONDS + RESOLUTION_SECONDS
    assert len({await balancer.pick("code", 80) for _ in range(4)}) == 2


async def test_replicas_already_tried_are_not_picked():
    balancer = _Names("10.0.0.1", "10.0.0.2").balancer()
    first = await balancer.pick("code", 80)
    second = await balancer.pick("code", 80, avoid={first})
    assert second not in (None, first)
    assert await balancer.pick("code", 80, avoid={first, second}) is None


def test_an_ipv6_address_is_written_in_brackets():
    assert Replica("fd00::1", 80).url == "http://[fd00::1]:80"


async def test_an_address_that_no_pod_can_have_is_never_chosen():
    names = _Names("10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "0.0.0.0")
    balancer = Balancer(own_address="10.0.0.9", resolve=names.resolve)
    assert {(await balancer.pick("code", 80)).address for _ in range(9)} == {"10.0.0.1"}
    names = _Names("169.254.169.254")
    assert await Balancer(own_address="10.0.0.9", resolve=names.resolve).pick("code", 80) is None
