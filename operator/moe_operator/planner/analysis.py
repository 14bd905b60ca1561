"""What an Expert's and a pool's traffic of the last day says, for people: statistics in closed form over buckets.

Numbers in a status move only if they changed by more than a tenth, so that steady traffic causes no writes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isclose
from typing import Any, TypeVar

from moe_formats.observations import SECONDS, TENTHS
from moe_formats.resources.analysis import Baseline, ExpertAnalysis, PoolAnalysis
from moe_formats.resources.conditions import Condition, ConditionType
from moe_formats.resources.drift import DriftStatus
from moe_formats.resources.expert_proposal import ExpertProposal
from moe_formats.resources.expert_status import Scores
from moe_formats.resources.reasons import Reason
from moe_operator.planner.trend import BLOCKS, trend_of
from moe_operator.traffic import HOUR, MINUTES, ExpertTraffic, PoolTraffic, Usage

Analysis = TypeVar("Analysis", ExpertAnalysis, PoolAnalysis)

#: Seconds that an analysis looks back, and that it is compared with.
WINDOW = 24 * HOUR
_BASELINE = 7 * WINDOW
#: Requests that each block of a trend needs.
LEAST_REQUESTS = 200
#: Seconds of the means that a block averages over.
_MEAN = 3 * MINUTES
#: Requests that a server works on at the same time (``ServeConfig.max_batch``).
CONCURRENCY = 8
#: A number in a status is replaced if it changed by more than this share of itself, or by this much if it is small.
_MOVES, _MOVES_BY = 0.1, 0.01
#: Reasons of an open proposal that waits for a person, and phases in which something comes of it.
ASKING = (Reason.AWAITING_APPROVAL, Reason.APPROVAL_VOID)
_ALIVE = ("Approved", "Running", "Undoing")
#: Conditions that ask for somebody to act while they hold, or while they do not.
_WARN_IF_TRUE = (ConditionType.STALLED, ConditionType.DRIFTED)
_WARN_IF_FALSE = (ConditionType.TARGETS_MET,)


@dataclass
class _Numbers:
    """The numbers of an analysis, and why some are absent."""

    given: dict[str, Any] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, above: float, below: float, why: str) -> None:
        """Note ``above / below``, or that it is absent because nothing can be divided by 0."""
        if below > 0:
            self.given[name] = _rounded(above / below)
        else:
            self.absent[name] = why


def analyse_expert(
    uid: str,
    traffic: PoolTraffic | None,
    *,
    scores: Scores | None,
    drift: DriftStatus | None,
    conditions: Iterable[Condition],
    proposals: Iterable[ExpertProposal] = (),
    before: ExpertAnalysis | None,
    now: datetime,
) -> ExpertAnalysis | None:
    """Return the analysis of an Expert, given by uid; None before anything was observed of it.

    ``proposals`` are those about the Expert, whatever has become of them.
    """
    own = traffic.experts.get(uid) if traffic is not None else None
    if own is None or traffic is None:
        return before
    end = _last_bucket(now)
    usage, numbers = own.of_day(end - WINDOW, end), _Numbers()
    numbers.put("share", usage.requests, _of_pool(traffic, end).requests, "the pool had no requests")
    numbers.put("failedShare", usage.failed, usage.requests, "it had no requests")
    _rates(numbers, own, usage)
    _routes(numbers, usage)
    _trend(numbers, own, end)
    gain = (drift.gain if drift is not None else None) or (scores.gain if scores is not None else None)
    if gain is None:
        numbers.absent["performance"] = (
            scores.absent.get("gain") if scores else None
        ) or "nothing was measured yet"
    moved = drift.interval if drift is not None else None
    if moved is None:
        numbers.absent["drift"] = (
            drift.absent.get("interval") if drift else None
        ) or "it was not measured yet"
    action = _proposed(newest_proposal(proposals)) or _action(conditions)
    after = ExpertAnalysis(
        observed_hours=_rounded(usage.observed_seconds / HOUR),
        requests=_whole(usage.requests),
        performance=gain,
        drift=moved,
        baseline=_baseline(own, end),
        needs_attention=action is not None,
        recommended_action=action,
        absent=numbers.absent,
        **numbers.given,
    )
    return _settled(before, after)


def analyse_pool(
    traffic: PoolTraffic | None,
    experts: Mapping[str, str],
    analyses: Mapping[str, ExpertAnalysis | None],
    *,
    familiar: bool,
    before: PoolAnalysis | None,
    now: datetime,
) -> PoolAnalysis | None:
    """Return the analysis of a pool from what was observed of its Experts, given by uid with their names.

    ``familiar`` says whether gateways know how prompts of the pool's own domains look, by which they count unmet requests.
    """
    if traffic is None or not traffic.experts:
        return before
    end = _last_bucket(now)
    usages = [own.of_day(end - WINDOW, end) for uid, own in traffic.experts.items() if uid in experts]
    whole, numbers = _sum(usages), _Numbers()
    why = "the pool had no requests"
    most = max((usage.requests for usage in usages), default=0.0)
    numbers.put("balance", most * len(usages), whole.requests, why)
    numbers.put("stoodInShare", whole.stood_in, whole.requests, why)
    if familiar:
        routed = sum(sum(usage.confidence) for usage in usages)
        numbers.put("unmetShare", whole.unmet, routed, "the pool's strategy chose an Expert for no request")
    else:
        numbers.absent["unmetShare"] = (
            "how prompts of the pool's own domains look was not measured with the newest table"
        )
    numbers.put(
        "utilization", whole.in_flight_seconds, whole.replica_seconds * CONCURRENCY, "the pool had no servers"
    )
    after = PoolAnalysis(
        observed_hours=_rounded(max((usage.observed_seconds for usage in usages), default=0.0) / HOUR),
        requests=_whole(whole.requests),
        needs_attention=sorted(
            name for name, item in analyses.items() if item is not None and item.needs_attention
        ),
        absent=numbers.absent,
        **numbers.given,
    )
    return _settled(before, after)


def share_of_requests(uid: str, traffic: PoolTraffic | None, now: datetime) -> tuple[float, float] | None:
    """Return an Expert's share of its pool's requests in the last 24 hours and in the seven days before.

    None if the pool had too few requests in either.
    """
    own = traffic.experts.get(uid) if traffic is not None else None
    if own is None or traffic is None:
        return None
    end = _last_bucket(now)
    begin = end - WINDOW
    before = _sum([each.of_hours(begin - _BASELINE, begin) for each in traffic.experts.values()])
    after = _of_pool(traffic, end)
    if min(before.requests, after.requests) < LEAST_REQUESTS:
        return None
    earlier, later = own.of_hours(begin - _BASELINE, begin), own.of_day(begin, end)
    return _rounded(later.requests / after.requests), _rounded(earlier.requests / before.requests)


def _last_bucket(now: datetime) -> float:
    """Return when the newest finished bucket ended: an analysis changes when a bucket does, and not in between."""
    return now.timestamp() // MINUTES * MINUTES


def _rates(numbers: _Numbers, own: ExpertTraffic, usage: Usage) -> None:
    numbers.put(
        "utilization",
        usage.in_flight_seconds,
        usage.replica_seconds * CONCURRENCY,
        "it had no servers",
    )
    generated = usage.completion_tokens
    nothing = "it generated nothing"
    numbers.put("tokensPerSecond", generated, usage.in_flight_seconds if generated else 0, nothing)
    best = max((_per_replica(hour) for hour in own.each_hour()), default=0.0)
    per_replica = _per_replica(usage)
    numbers.put("efficiency", min(per_replica, best), best if generated else 0, nothing)


def _per_replica(usage: Usage) -> float:
    """Return tokens generated per second of a server; 0 for less than a minute of servers, which says nothing."""
    return usage.completion_tokens / usage.replica_seconds if usage.replica_seconds >= 60 else 0.0


def _routes(numbers: _Numbers, usage: Usage) -> None:
    streamed, routed = sum(usage.first_token), sum(usage.confidence)
    if streamed:
        reached, edge = 0.0, SECONDS[-1]
        for number, upper in zip(usage.first_token, (*SECONDS, 2 * SECONDS[-1]), strict=True):
            reached, edge = reached + number, upper
            if reached >= 0.95 * streamed:
                break
        numbers.given["firstTokenSeconds"] = edge
    else:
        numbers.absent["firstTokenSeconds"] = "no answer was streamed"
    middles = sum(number * (edge - 0.05) for number, edge in zip(usage.confidence, TENTHS, strict=True))
    numbers.put("confidence", middles, routed, "the pool's strategy chose it for no request")


def _trend(numbers: _Numbers, own: ExpertTraffic, end: float) -> None:
    length = WINDOW / BLOCKS
    means: list[float] = []
    for block in range(BLOCKS):
        begin = end - WINDOW + block * length
        if own.of_day(begin, begin + length).answered < LEAST_REQUESTS:
            hours = length / HOUR
            numbers.absent["trend"] = (
                f"one of the four blocks of {hours:g} hours has fewer than {LEAST_REQUESTS} requests"
            )
            return
        means.append(_mean(own, begin, begin + length))
    if min(means) <= 0:
        numbers.absent["trend"] = "nothing was generated in one of the four blocks"
        return
    slope = trend_of(means)
    numbers.given |= {"trend": slope.trend, "change": _rounded(slope.change)}


def _mean(own: ExpertTraffic, begin: float, end: float) -> float:
    """Return the mean of tokens per second of a request over the quarters of an hour that had requests; 0 if none had."""
    quarters = [own.of_day(at, at + _MEAN) for at in _steps(begin, end)]
    speeds = [
        item.completion_tokens / item.in_flight_seconds for item in quarters if item.in_flight_seconds > 0
    ]
    return sum(speeds) / len(speeds) if speeds else 0.0


def _steps(begin: float, end: float) -> list[float]:
    return [begin + place * _MEAN for place in range(round((end - begin) / _MEAN))]


def _baseline(own: ExpertTraffic, end: float) -> Baseline | None:
    usage = own.of_hours(end - WINDOW - _BASELINE, end - WINDOW)
    if usage.observed_seconds <= 0:
        return None
    numbers = _Numbers()
    numbers.put("requestsPerHour", usage.requests * HOUR, usage.observed_seconds, "")
    numbers.put("utilization", usage.in_flight_seconds, usage.replica_seconds * CONCURRENCY, "")
    numbers.put(
        "tokensPerSecond",
        usage.completion_tokens,
        usage.in_flight_seconds if usage.completion_tokens else 0,
        "",
    )
    numbers.put("failedShare", usage.failed, usage.requests, "")
    return Baseline(**numbers.given)


def _of_pool(traffic: PoolTraffic, end: float) -> Usage:
    return _sum([own.of_day(end - WINDOW, end) for own in traffic.experts.values()])


def _sum(usages: list[Usage]) -> Usage:
    columns = zip(*(usage.sums() for usage in usages), strict=True)
    return Usage(*(sum(column) for column in columns))


def _proposed(newest: ExpertProposal | None) -> str | None:
    """Return the act and the evidence of a proposal that waits for a person."""
    if newest is None or newest.status.evidence is None or newest.status.reason not in ASKING:
        return None
    return f"{newest.spec.act.value}, proposed as {newest.metadata.name}: {newest.status.evidence.summary}"[
        :1024
    ]


def newest_proposal(proposals: Iterable[ExpertProposal]) -> ExpertProposal | None:
    """Return the newest proposal that waits for a person or is being carried out, or None."""
    alive = [
        item
        for item in proposals
        if item.status.phase in _ALIVE or (item.status.phase == "Open" and item.status.reason in ASKING)
    ]
    return max(alive, key=lambda item: (_recorded(item), item.metadata.name), default=None)


def _recorded(proposal: ExpertProposal) -> str:
    return proposal.status.evidence.time if proposal.status.evidence is not None else ""


def _action(conditions: Iterable[Condition]) -> str | None:
    """Return the message of the first condition that asks for somebody to act."""
    for item in conditions:
        wrong = (item.type in _WARN_IF_TRUE and item.status == "True") or (
            item.type in _WARN_IF_FALSE and item.status == "False"
        )
        if wrong:
            return f"{item.reason}: {item.message}"[:1024]
    return None


def _settled(before: Analysis | None, after: Analysis) -> Analysis:
    """Return the analysis before if the new one differs from it by little. That more hours were observed is no news."""
    if before is None:
        return after
    old, new = (item.model_dump(exclude={"observed_hours"}) for item in (before, after))
    return before if _alike(old, new) else after


def _alike(before: Any, after: Any) -> bool:
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(
            _alike(value, after[name]) for name, value in before.items()
        )
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (before, after))
    if numbers:
        return isclose(before, after, rel_tol=_MOVES, abs_tol=_MOVES_BY)
    return bool(before == after)


def _rounded(value: float) -> float:
    """Return a number with three significant digits."""
    return float(f"{value:.3g}")


def _whole(value: float) -> int:
    return int(_rounded(value))
