from datetime import UTC, datetime

import pytest

from moe_formats.resources.reasons import Reason
from moe_operator.cluster import contest
from moe_operator.cluster.apply import Applier
from moe_operator.cluster.contest import Contest, Contested
from moe_operator.cluster.internal_error import error_status
from moe_operator.cluster.resources import DEPLOYMENT
from moe_operator.state import Plan


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_the_same_change_is_made_so_often_and_then_no_more_for_a_while(make):
    clock = Clock()
    seen, service = Contest(clock), make("Service", "s", spec={"selector": {"a": "b"}})
    for _ in range(contest.CHANGES):
        seen.about_to_change(service, "u")
        clock.now += 1
    with pytest.raises(Contested, match=r"Service s was changed back .* 5 times .*kubectl get leases"):
        seen.about_to_change(service, "u")
    seen.about_to_change(service, "another object")
    seen.about_to_change(make("Service", "s", spec={"selector": {"a": "c"}}), "u")
    clock.now = contest.WINDOW_SECONDS
    seen.about_to_change(service, "u")
    with pytest.raises(Contested):
        seen.about_to_change(service, "u")


async def test_two_operators_that_want_an_object_otherwise_soon_stop_writing(api, cache, make):
    """Each sees what the other wrote and puts its own back: the writes end, and the object says why."""
    mine, theirs = (
        make("Deployment", "gateway", spec={"replicas": 1, "paused": paused}, owner="P")
        for paused in (True, False)
    )
    operators = [(Applier(api, cache), item) for item in (mine, theirs)]
    stopped = 0
    for _ in range(50):
        for applier, wanted in operators:
            cache.put(await api.get(DEPLOYMENT, "ns", "gateway")) if api.objects else None
            try:
                await applier.carry_out(Plan(apply=(wanted,)), wanted)
            except Contested as error:
                stopped += 1
                said = error_status(
                    make("ExpertPool", "p", status={}), error, datetime(2026, 1, 1, tzinfo=UTC)
                )
                assert said["reason"] == Reason.CHANGED_BY_OTHERS
    writes = [item for item in api.writes if item[0] in ("apply", "merge")]
    assert stopped > 40
    assert len(writes) <= 2 * 2 * contest.CHANGES
