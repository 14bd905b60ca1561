import asyncio

import pytest

from moe_operator.cluster.queue import FIRST_DELAY, LONGEST_DELAY, KeyedQueue

#: Seconds after which something that was waited for never comes. It is never the pace of a test.
HANGS = 60


@pytest.fixture
def queue():
    """Keys are `lane/name`."""
    return KeyedQueue(lambda key: key.partition("/")[0])


async def take_now(queue):
    return await asyncio.wait_for(queue.take(), HANGS)


async def test_a_key_that_waits_is_there_once(queue):
    for _ in range(3):
        queue.add("p/a")
    assert len(queue) == 1
    queue.done(await take_now(queue))
    assert len(queue) == 0


async def test_a_key_that_is_added_while_under_way_comes_again_once(queue):
    queue.add("p/a")
    key = await take_now(queue)
    queue.add("p/a")
    queue.add("p/a")
    assert len(queue) == 0
    queue.done(key)
    assert len(queue) == 1
    queue.done(await take_now(queue))
    assert len(queue) == 0


async def test_keys_of_a_lane_are_handed_out_one_at_a_time_and_others_go_on(queue):
    for key in ("p/a", "p/b", "q/a"):
        queue.add(key)
    taken = {await take_now(queue), await take_now(queue)}
    assert taken == {"p/a", "q/a"}
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done("p/a")
    assert await asyncio.wait_for(waiting, HANGS) == "p/b"


async def test_never_two_of_a_lane_at_once_under_many_workers(queue):
    busy: set[str] = set()
    looked_at: list[str] = []

    async def work():
        while True:
            key = await queue.take()
            lane = key[0]
            assert lane not in busy
            busy.add(lane)
            await asyncio.sleep(0)
            busy.discard(lane)
            looked_at.append(key)
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(5)]
    keys = [f"{lane}/{n}" for lane in "pqr" for n in range(20)]
    for key in keys:
        queue.add(key)
    async with asyncio.timeout(5):
        while len(looked_at) < len(keys):
            await asyncio.sleep(0)
    for worker in workers:
        assert not worker.done()
        worker.cancel()
    assert sorted(looked_at) == sorted(keys)


async def test_failures_double_the_delay_up_to_a_cap(queue):
    delays = [queue.fail("p/a") for _ in range(12)]
    assert delays[:3] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert delays[-1] == LONGEST_DELAY
    queue.succeed("p/a")
    assert queue.failures("p/a") == 0
    assert queue.fail("p/a", longest=0.1) == 0.1


async def test_of_several_delays_the_earliest_holds(queue):
    queue.add_after("p/a", 30)
    queue.add_after("p/a", 0.01)
    queue.add_after("p/a", 60)
    assert await take_now(queue) == "p/a"
    queue.done("p/a")
    assert len(queue) == 0


async def test_the_age_of_the_oldest_counts_what_is_under_way(queue):
    assert queue.oldest_seconds() == 0
    queue.add("p/a")
    await take_now(queue)
    await asyncio.sleep(0.02)
    assert queue.oldest_seconds() >= 0.02
    queue.done("p/a")
    assert queue.oldest_seconds() == 0


async def test_a_cancelled_wait_loses_no_key(queue):
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    waiting.cancel()
    other = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add("p/a")
    assert await asyncio.wait_for(other, HANGS) == "p/a"


async def test_a_changed_object_does_not_wait_for_all_that_only_may_be_concerned(queue):
    for number in range(50):
        queue.add(f"p/peer-{number}")
    queue.add("p/changed", ahead=True)
    taken = []
    for _ in range(2):
        taken.append(await take_now(queue))
        queue.done(taken[-1])
    assert "p/changed" in taken


async def test_a_storm_on_one_object_does_not_starve_the_others(queue):
    for number in range(5):
        queue.add(f"p/peer-{number}")
    taken = []
    for _ in range(10):
        queue.add("p/storm", ahead=True)
        taken.append(await take_now(queue))
        queue.done(taken[-1])
    assert sum(key.startswith("p/peer") for key in taken) == 5


async def test_a_key_that_waits_moves_ahead_and_is_still_there_once(queue):
    for name in ("a", "b", "c"):
        queue.add(f"p/{name}")
    queue.add("p/c", ahead=True)
    taken = []
    while len(queue):
        taken.append(await take_now(queue))
        queue.done(taken[-1])
    assert taken[:2] in (["p/c", "p/a"], ["p/a", "p/c"])
    assert sorted(taken) == ["p/a", "p/b", "p/c"]


async def test_a_key_that_is_under_way_stays_in_its_lane_when_its_object_moves_or_goes():
    lanes = {"a": "p", "b": "p"}
    queue = KeyedQueue(lambda key: lanes.get(key, key))
    queue.add("a")
    queue.add("b")
    assert await take_now(queue) == "a"
    del lanes["a"]  # Its object is gone: nothing tells any more which lane it belongs to.
    queue.add("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 0.05)
    queue.done("a")
    assert await take_now(queue) == "b"
    assert await take_now(queue) == "a"
