"""What traffic says, against plain arithmetic; and that steady traffic moves nothing."""

from datetime import UTC, datetime
from typing import Any

import pytest

from moe_formats.job_report import Interval
from moe_formats.observations import SECONDS
from moe_formats.resources.analysis import ExpertAnalysis
from moe_formats.resources.conditions import Condition, ConditionType, condition
from moe_formats.resources.drift import DriftStatus
from moe_formats.resources.expert_status import Scores
from moe_formats.resources.reasons import Reason
from moe_operator.planner.analysis import CONCURRENCY, analyse_expert, analyse_pool, share_of_requests
from moe_operator.traffic import HOUR, MINUTES, PoolTraffic, Usage

END = datetime(2026, 1, 10, 12, tzinfo=UTC)
STOP = END.timestamp()
ROUTED = (0.0,) * 8 + (3.0, 1.0)


def steady(
    requests: float = 10, *, hours: float = 24, speed: float = 20, before: float = 0, **parts: Any
) -> list[tuple[float, Usage]]:
    """Buckets of 5 minutes that end ``before`` seconds before END: each request takes 2 s of one of two servers."""
    given = {"failed": 0.0, "left": 0.0, "stood_in": 0.0} | parts
    one = Usage(
        observed_seconds=300,
        replica_seconds=600,
        answered=requests,
        in_flight_seconds=2 * requests,
        completion_tokens=2 * requests * speed,
        **given,
    )
    count = int(hours * 12)
    return [(STOP - before - MINUTES * (place + 1), one) for place in reversed(range(count))]


def traffic(**experts: list[tuple[float, Usage]]) -> PoolTraffic:
    pool = PoolTraffic()
    for uid, buckets in experts.items():
        for time, usage in buckets:
            pool.add(uid, time, usage)
    return pool


def analysis(pool: PoolTraffic, uid: str = "code", **given: Any) -> ExpertAnalysis:
    parts: dict[str, Any] = {"scores": None, "drift": None, "conditions": [], "before": None, "now": END}
    found = analyse_expert(uid, pool, **parts | given)
    assert found is not None
    return found


def test_the_numbers_of_a_day() -> None:
    streamed = (0.0,) * 4 + (9.0, 1.0) + (0.0,) * 9
    found = analysis(
        traffic(code=steady(failed=1.0, first_token=streamed, confidence=ROUTED), law=steady(requests=33))
    )
    requests = 288 * 11
    assert found.requests == float(f"{requests:.3g}") and found.observed_hours == 24
    assert found.share == pytest.approx(11 / 44) and found.failed_share == pytest.approx(1 / 11, rel=0.01)
    assert found.utilization == pytest.approx(20 / (600 * CONCURRENCY), rel=0.01)
    assert found.tokens_per_second == 20
    assert found.efficiency == 1
    assert found.first_token_seconds == SECONDS[5]
    assert found.confidence == pytest.approx((3 * 0.85 + 0.95) / 4)
    assert (found.trend, found.change) == ("Stable", 0)
    assert found.absent == {"performance": "nothing was measured yet", "drift": "it was not measured yet"}
    assert found.baseline is None


def test_what_cannot_be_computed_is_absent_with_a_reason() -> None:
    idle = traffic(code=[(STOP - MINUTES, Usage(observed_seconds=300))])
    found = analysis(idle)
    given = found.model_dump(by_alias=True, exclude_none=True)
    assert set(given) == {"observedHours", "requests", "trend", "needsAttention", "absent"}
    assert found.absent == {
        "share": "the pool had no requests",
        "failedShare": "it had no requests",
        "utilization": "it had no servers",
        "tokensPerSecond": "it generated nothing",
        "efficiency": "it generated nothing",
        "firstTokenSeconds": "no answer was streamed",
        "confidence": "the pool's strategy chose it for no request",
        "trend": "one of the four blocks of 6 hours has fewer than 200 requests",
        "performance": "nothing was measured yet",
        "drift": "it was not measured yet",
    }


@pytest.mark.parametrize(("first", "trend"), [(10, "Improving"), (40, "Declining"), (20, "Stable")])
def test_a_trend_is_of_how_fast_answers_appear(first: float, trend: str) -> None:
    buckets = []
    for block in range(4):
        speed = first + (20 - first) * block / 3
        buckets += steady(hours=6, speed=speed, before=(3 - block) * 6 * HOUR)
    found = analysis(traffic(code=buckets))
    assert found.trend == trend and "trend" not in found.absent


def test_efficiency_is_over_the_best_hour_of_a_month() -> None:
    best = steady(requests=40, hours=1, before=20 * 24 * HOUR)
    found = analysis(traffic(code=best + steady()))
    assert found.efficiency == pytest.approx(0.25)


def test_the_baseline_is_the_week_before() -> None:
    week = [
        (
            STOP - 24 * HOUR - HOUR * (place + 1),
            Usage(observed_seconds=3600, replica_seconds=3600, answered=90, failed=10),
        )
        for place in reversed(range(24 * 9))
    ]
    found = analysis(traffic(code=week + steady())).baseline
    assert found is not None
    assert (found.requests_per_hour, found.failed_share, found.utilization) == (100, 0.1, 0)
    assert found.tokens_per_second is None


def test_the_gain_is_the_measured_one() -> None:
    gain = Interval(value=0.2, lower=0.1, upper=0.3)
    assert analysis(traffic(code=steady()), scores=Scores(gain=gain)).performance == gain
    why = Scores(absent={"gain": "a preset has no base"})
    assert analysis(traffic(code=steady()), scores=why).absent["performance"] == "a preset has no base"


def said(type_: ConditionType, holds: bool) -> Condition:
    return condition(type_, holds, Reason.INVALID_OBJECT, "do this", generation=1)


@pytest.mark.parametrize(
    ("conditions", "needs"),
    [
        ([said(ConditionType.STALLED, True)], True),
        ([said(ConditionType.STALLED, False)], False),
        ([said(ConditionType.READY, False), said(ConditionType.TARGETS_MET, False)], True),
        ([said(ConditionType.TARGETS_MET, True)], False),
    ],
)
def test_attention_is_needed_where_a_condition_says_what_to_do(
    conditions: list[Condition], needs: bool
) -> None:
    found = analysis(traffic(code=steady()), conditions=conditions)
    assert found.needs_attention is needs
    assert (found.recommended_action is not None and "do this" in found.recommended_action) is needs


def test_steady_traffic_moves_nothing_and_a_change_does() -> None:
    before = analysis(traffic(code=steady()))
    assert analysis(traffic(code=steady(10.5)), before=before) is before
    assert analysis(traffic(code=steady(14)), before=before).requests == 4030
    assert (
        analysis(traffic(code=steady()), before=before, conditions=[said(ConditionType.STALLED, True)])
        is not before
    )


def test_drift_is_that_of_the_status_or_absent_with_its_reason() -> None:
    interval = Interval(value=0.05, lower=0.03, upper=0.07, clusters=30)
    measured = DriftStatus(
        drifted=True,
        interval=interval,
        revision="code-2",
        anchor="sha256:" + "0" * 64,
        request="code",
        time="2026-01-09T00:00:00+00:00",
    )
    assert analysis(traffic(code=steady()), drift=measured).drift == interval
    gain = Interval(value=0.1, lower=0.08, upper=0.12, clusters=60)
    on_anchor = Scores(gain=Interval(value=0.2, lower=0.15, upper=0.25, clusters=30))
    found = analysis(traffic(code=steady()), drift=measured, scores=on_anchor)
    assert found.performance == on_anchor.gain
    newest = measured.model_copy(update={"gain": gain})
    assert analysis(traffic(code=steady()), drift=newest, scores=on_anchor).performance == gain
    few = measured.model_copy(update={"interval": None, "absent": {"interval": "TooFewWindows: 1"}})
    assert analysis(traffic(code=steady()), drift=few).absent["drift"] == "TooFewWindows: 1"


def test_shares_of_requests_are_of_the_last_day_and_of_the_week_before() -> None:
    day, week = 24 * HOUR, 7 * 24
    pool = traffic(
        code=[*steady(10, hours=week, before=day), *steady(30)],
        law=[*steady(30, hours=week, before=day), *steady(10)],
    )
    assert share_of_requests("code", pool, END) == pytest.approx((0.75, 0.25))
    assert share_of_requests("code", traffic(code=steady(30)), END) is None
    few = traffic(code=[*steady(0.5, hours=week, before=day), *steady(0.5)])
    assert share_of_requests("code", few, END) is None
    assert share_of_requests("gone", pool, END) is None
    assert share_of_requests("code", None, END) is None


def test_before_anything_was_observed_there_is_no_analysis_and_afterwards_it_stays() -> None:
    nothing: dict[str, Any] = {"scores": None, "drift": None, "conditions": [], "now": END}
    assert analyse_expert("code", None, before=None, **nothing) is None
    assert analyse_expert("code", PoolTraffic(), before=None, **nothing) is None
    before = analysis(traffic(code=steady()))
    assert analyse_expert("code", None, before=before, **nothing) is before


@pytest.mark.parametrize(
    ("requests", "balance"), [([10, 10, 10], 1), ([30, 0, 0], 3), ([20, 10, 0], 2), ([0, 0, 0], None)]
)
def test_the_balance_of_a_pool(requests: list[float], balance: float | None) -> None:
    uids = {f"uid-{place}": f"e{place}" for place in range(3)}
    pool = traffic(**{uid: steady(number) for uid, number in zip(uids, requests, strict=True)})
    found = analyse_pool(pool, uids, {}, familiar=True, before=None, now=END)
    assert found is not None and found.balance == balance
    assert ("balance" in found.absent) is (balance is None)


def test_a_pool_names_the_experts_that_need_attention_and_forgets_strangers() -> None:
    stalled = analysis(traffic(code=steady()), conditions=[said(ConditionType.STALLED, True)])
    fine = analysis(traffic(code=steady()))
    pool = traffic(code=steady(stood_in=2.0), gone=steady(1000))
    found = analyse_pool(
        pool,
        {"code": "code"},
        {"code": stalled, "law": fine, "new": None},
        familiar=False,
        before=None,
        now=END,
    )
    assert found is not None
    assert found.needs_attention == ["code"] and found.requests == 2880
    assert found.stood_in_share == pytest.approx(0.2)
    assert found.unmet_share is None and "was not measured" in found.absent["unmetShare"]


def test_unmet_requests_are_a_share_of_those_that_were_routed() -> None:
    pool = traffic(code=steady(unmet=1.0, confidence=ROUTED), law=steady(confidence=ROUTED))
    found = analyse_pool(pool, {"code": "code", "law": "law"}, {}, familiar=True, before=None, now=END)
    assert found is not None and found.unmet_share == pytest.approx(1 / 8, rel=0.01)


@pytest.mark.parametrize("seconds", [0, 1, 299])
def test_an_analysis_changes_when_a_bucket_ends(seconds: int) -> None:
    pool = traffic(code=steady())
    pool.add("code", STOP + 1, Usage(observed_seconds=30, answered=1e6))
    now = datetime.fromtimestamp(STOP + seconds, UTC)
    assert analysis(pool, now=now) == analysis(traffic(code=steady()))
