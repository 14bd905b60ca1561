"""RollBack: make an earlier revision the current one, because requests got clearly worse within a day of a promotion.

Two shares are compared, each of the day after the promotion with the day before: requests that failed, and streamed answers
that began later than 95 % did before. A share counts as worse if it is at least twice as large, larger by a percentage
point, and larger by a test at alpha 0.001.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from moe_formats.observations import SECONDS
from moe_formats.resources.expert_proposal import Effect, ExpertProposal, ExpertProposalSpec
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.lifecycle import Act
from moe_formats.resources.reasons import Reason
from moe_operator.planner.acts.policy import Found, Policy, current_or_why, rounded
from moe_operator.planner.conditions import Why
from moe_operator.planner.lineage import by_name, is_promoted
from moe_operator.planner.proportions import Share, difference, is_larger
from moe_operator.state import Member
from moe_operator.traffic import HOUR, ExpertTraffic, Usage

_DAY = 24 * HOUR
#: Requests that each share needs.
_LEAST = 200
#: A share is worse if it is this many times as large, and larger by this much.
_TIMES, _BY = 2.0, 0.01
_FAILED = "share of requests that fail"
#: Upper edges of all buckets of seconds to the first token; the last bucket has none, and gets twice the edge before.
_EDGES = (*SECONDS, 2 * SECONDS[-1])


@dataclass(frozen=True)
class _Quantity:
    """A share of requests before and after."""

    name: str
    before: Share
    after: Share

    @property
    def is_worse(self) -> bool:
        enough = min(self.before.total, self.after.total) >= _LEAST
        larger = self.after.value >= max(_TIMES * self.before.value, self.before.value + _BY)
        return enough and larger and is_larger(self.after, self.before)


def _trigger(member: Member, now: datetime) -> Found | None:
    current = current_or_why(member)
    if isinstance(current, Why) or member.expert.spec.revision is not None:
        return None
    before = by_name(member.revisions).get(_before(current))
    promoted = _promoted(current)
    if before is None or not is_promoted(before) or promoted is None:
        return None
    worse = next((item for item in _quantities(member, promoted, now) if item.is_worse), None)
    return _found(current, before, worse) if worse is not None else None


def _asked(member: Member, spec: ExpertProposalSpec, now: datetime) -> Found | Why:
    current = current_or_why(member)
    if isinstance(current, Why):
        return current
    expert, pin = member.expert.metadata.name, member.expert.spec.revision
    if pin is not None:
        return Why(
            Reason.NOT_POSSIBLE,
            f"spec.revision of {expert} pins {pin}: change that field instead, or remove it",
        )
    wanted = by_name(member.revisions).get(spec.revision or "")
    promoted = [item.metadata.name for item in member.revisions if is_promoted(item)]
    if wanted is None or not is_promoted(wanted) or wanted.spec.number >= current.spec.number:
        earlier = ", ".join(name for name in promoted if name != current.metadata.name) or "none"
        return Why(
            Reason.NOT_POSSIBLE,
            f"spec.revision is {spec.revision!r}, and it has to be a promoted revision of {expert} that is older than the "
            f"current one, {current.metadata.name}: promoted are {earlier}",
        )
    promoted_at = _promoted(current)
    worse = [item for item in _quantities(member, promoted_at, now) if item.is_worse] if promoted_at else []
    return _found(current, wanted, worse[0] if worse else None)


def _found(current: ExpertRevision, to: ExpertRevision, worse: _Quantity | None) -> Found:
    name, target = current.metadata.name, to.metadata.name
    if worse is None:
        nothing = "no share of requests got worse by as much as would have it proposed"
        return Found(current, target, f"a person wants {target} back instead of {name}; {nothing}", nothing)
    summary = (
        f"since {name} was promoted, the {worse.name} is {worse.after.value:.1%} of {worse.after.total:.0f} requests; it was "
        f"{worse.before.value:.1%} of {worse.before.total:.0f} in the day before. Going back to {target} should undo that"
    )
    change = difference(worse.before, worse.after)
    effect = Effect(quantity=worse.name, interval=rounded(change.value, change.lower, change.upper))
    return Found(current, target, summary, effect)


def _measured(member: Member, proposal: ExpertProposal, now: datetime) -> Effect | str | None:
    """Return the share since the act minus the share that it was proposed for."""
    expected, evidence = proposal.status.expected, proposal.status.evidence
    promoted = _seconds(evidence.promoted) if evidence is not None else None
    done = _seconds(proposal.status.finished or "")
    if expected is None or done is None or promoted is None:
        return "nothing was promised that could be measured"
    own = _own(member)
    if own is not None:
        after = _usage(own, done, min(done + _DAY, now.timestamp()), now)
        worst = _usage(own, promoted, min(promoted + _DAY, done), now)
        shares = [_share(expected.quantity, usage) for usage in (after, worst)]
        if min(share.total for share in shares) >= _LEAST:
            change = difference(shares[0], shares[1])
            return Effect(
                quantity=expected.quantity, interval=rounded(change.value, change.lower, change.upper)
            )
    waited = now.timestamp() - done
    return None if waited < _DAY else f"fewer than {_LEAST} requests came in the day afterwards"


def _before(current: ExpertRevision) -> str:
    """Return the name of the revision that was current when the gate judged this one; empty if there was none."""
    evidence = current.status.evidence
    return (evidence.current if evidence is not None else None) or ""


def _promoted(current: ExpertRevision) -> float | None:
    """Return when a revision was promoted, in seconds since 1970; None if its verdict does not say."""
    return _seconds(current.status.verdict.time) if current.status.verdict is not None else None


def _seconds(time: str) -> float | None:
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return None


def _quantities(member: Member, promoted: float, now: datetime) -> Iterator[_Quantity]:
    """Yield the shares that are compared, each with the day before and the day after a promotion."""
    own = _own(member)
    if own is None:
        return
    before = _usage(own, promoted - _DAY, promoted, now)
    after = _usage(own, promoted, min(promoted + _DAY, now.timestamp()), now)
    edge = _edge(before)
    for name in (_FAILED, _late(edge)):
        yield _Quantity(name, _share(name, before), _share(name, after))


def _own(member: Member) -> ExpertTraffic | None:
    return member.traffic.experts.get(member.expert.metadata.uid) if member.traffic is not None else None


def _usage(own: ExpertTraffic, begin: float, end: float, now: datetime) -> Usage:
    """Return what happened in a span.

    What begins within the last day is known to 5 minutes. What is older is known by the hour, and the hour in which the
    span ends is left out, since it may be another revision's in part.
    """
    if begin >= now.timestamp() - _DAY:
        return own.of_day(begin, end)
    recent = own.of_day(begin, end - HOUR)
    hours = own.of_hours(begin, end - HOUR)
    return replace(hours, first_token=recent.first_token, confidence=recent.confidence)


def _edge(before: Usage) -> float:
    """Return the seconds within which 95 % of streamed answers began; the last edge if histograms of that time are not kept."""
    total, reached = sum(before.first_token), 0.0
    for number, edge in zip(before.first_token, _EDGES, strict=False):
        reached += number
        if total and reached >= 0.95 * total:
            return edge
    return _EDGES[-1]


def _late(edge: float) -> str:
    return f"share of streamed answers that begin after {edge:g} s"


def _share(quantity: str, usage: Usage) -> Share:
    if quantity == _FAILED:
        return Share(usage.failed, usage.requests)
    limit = next(edge for edge in _EDGES if _late(edge) == quantity)
    late = sum(number for number, edge in zip(usage.first_token, _EDGES, strict=False) if edge > limit)
    return Share(late, sum(usage.first_token))


ROLL_BACK = Policy(Act.ROLL_BACK, None, _trigger, _asked, _measured)
