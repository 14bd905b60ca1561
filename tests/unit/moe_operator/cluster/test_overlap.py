import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from moe_formats.resources import labels
from moe_operator.cluster import overlap
from moe_operator.cluster.lease import Lease
from moe_operator.cluster.overlap import SCOPE, Overlap, Rival, StandsAside, rivals

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def lease(name, *, created, scope="a,b", holder="pod", age=1.0, ours=True):
    renewed = (NOW - timedelta(seconds=age)).isoformat()
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": f"2026-01-01T0{created}:00:00Z",
            "labels": {labels.MANAGED_BY: labels.FIELD_MANAGER} if ours else {},
            "annotations": {} if scope is None else {SCOPE: scope},
        },
        "spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15},
    }


MINE = lease("mine", created=5)


@pytest.mark.parametrize(
    ("scope", "other", "found"),
    [
        (("a", "b"), lease("other", created=1), Rival("other", "pod", "in namespace a, b", True)),
        (("a", "b"), lease("other", created=6), Rival("other", "pod", "in namespace a, b", False)),
        (("a", "b"), lease("other", created=1, scope="b,c"), Rival("other", "pod", "in namespace b", True)),
        (("a", "b"), lease("other", created=1, scope=""), Rival("other", "pod", "in namespace a, b", True)),
        ((), lease("other", created=1, scope="c"), Rival("other", "pod", "in namespace c", True)),
        ((), lease("other", created=1, scope=""), Rival("other", "pod", "in all namespaces", True)),
        (("a", "b"), lease("other", created=1, scope="c"), None),
        (("a", "b"), lease("other", created=1, scope=None), None),
        (("a", "b"), lease("other", created=1, holder=""), None),
        (("a", "b"), lease("other", created=1, ours=False), None),
        (("a", "b"), lease("other", created=1, age=74), Rival("other", "pod", "in namespace a, b", True)),
        (("a", "b"), lease("other", created=1, age=76), None),
    ],
)
def test_another_release_is_found_by_its_lease(scope, other, found):
    assert rivals([MINE, other], "mine", scope, NOW) == ([found] if found else [])


def test_of_two_that_were_made_in_the_same_second_exactly_one_is_first():
    pair = [lease("a", created=5), lease("b", created=5)]
    assert [item.first for item in rivals(pair, "a", (), NOW)] == [False]
    assert [item.first for item in rivals(pair, "b", (), NOW)] == [True]


async def test_the_second_release_stands_aside_says_so_and_goes_on_when_the_first_is_gone(
    api, monkeypatch, caplog
):
    monkeypatch.setattr(overlap, "LOOK_SECONDS", 0.001)
    first, second = (
        Lease(namespace="ns", name=name, holder=f"pod-{name}", seconds=15, annotations={SCOPE: "a"})
        for name in ("a-first", "b-second")
    )
    for item in (first, second):
        assert await item.try_once(api)
    acts = Overlap(namespace="ns", lease="a-first", scope=("a",))
    waits = Overlap(namespace="ns", lease="b-second", scope=("a",))
    assert not await acts.look(api)
    clearing = asyncio.create_task(waits.clear(api))
    await asyncio.sleep(0.01)
    assert not clearing.done()
    for part in ("ns/a-first", "ns/b-second", "pod-a-first", "in namespace a", "does nothing until"):
        assert part in waits.waits
    assert "stands aside" in caplog.text and caplog.text.count("does nothing until") == 1, "each says it once"
    with pytest.raises(StandsAside, match="a-first"):
        await waits.watch(api)
    await first.release(api)
    await asyncio.wait_for(clearing, 5)
    assert waits.waits == ""
