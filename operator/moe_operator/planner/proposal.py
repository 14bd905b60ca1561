"""Follows one proposal: from its evidence, through the decision about it, to its effect, and back if it is undone.

    Open        it waits for a person, or cannot be done as things are now
    Approved    by a person who quoted its evidence, or by the pool's policy; it waits for the budget or for its turn
    Running     the Expert's plan carries it out (demand.py, withdrawal.py)
    Done        the promised effect was measured, or nothing was promised, or it cannot be measured
    Missed      the gate refused what was made, or the measured effect is not the promised one
    Undoing     the Expert's plan takes it back; then Undone
    Rejected, Expired, Void, Superseded     nothing was done; only what is Superseded may become Open again

A proposal that the operator made is known by its name, which has the digest of its evidence: if the trigger gives that name
now, whoever created the object created what the operator would have. Labels prove nothing, so nothing that a person wrote
is ever approved by the policy.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from moe_formats.resources import labels
from moe_formats.resources.conditions import ConditionType, find_condition
from moe_formats.resources.expert_proposal import (
    Effect,
    ExpertProposal,
    ProposalEvidence,
)
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.reasons import Reason
from moe_operator.config import OperatorConfig
from moe_operator.planner.acts import ACTS
from moe_operator.planner.acts.policy import Found, Policy, evidence_of, made_for, new_text
from moe_operator.planner.attempts import known_reason
from moe_operator.planner.conditions import Why
from moe_operator.planner.lineage import by_name, current_of, is_promoted
from moe_operator.planner.modes import mode_for
from moe_operator.planner.names import proposal_name
from moe_operator.planner.proposal_status import proposal_events, proposal_status
from moe_operator.planner.status_writes import status_write
from moe_operator.planner.times import BUDGET_PERIOD, PROPOSAL_LIFE, SUBJECT_AWAITED
from moe_operator.state import Member, Plan, ProposalState

#: Seconds between two looks at an effect that can be measured only after a while.
_MEASURED_AGAIN = 1800.0


@dataclass(frozen=True)
class Step:
    """What a proposal has come to: its phase and why, and what else of its status changes."""

    phase: str
    why: Why
    changes: dict[str, Any] = field(default_factory=dict)
    #: Seconds until time alone changes it.
    wait: float | None = None


def plan_proposal(state: ProposalState, config: OperatorConfig, now: datetime) -> Plan:
    """Return what should be done now: its status is written, and the plans of its Expert and pool act on that."""
    proposal = state.proposal
    if proposal.metadata.deletion_timestamp is not None:
        return Plan()
    step = _next(state, now)
    changes = {"expires": _expires(proposal).isoformat(), **step.changes}
    status = proposal_status(proposal, step.phase, step.why, changes, now=now)
    statuses = status_write(proposal, status)
    events = proposal_events(proposal.status, status, step.why) if statuses else ()
    return Plan(statuses=statuses, events=events, requeue=step.wait)


def started_since(proposals: Iterable[ExpertProposal], since: datetime) -> list[datetime]:
    """Return when proposals started, of those that did after a time; the earliest first."""
    times = [_time(item.status.started) for item in proposals]
    return sorted(time for time in times if time is not None and time > since)


def _next(state: ProposalState, now: datetime) -> Step:
    phase = state.proposal.status.phase
    if phase in ("Rejected", "Expired", "Void", "Undone"):
        return _same(state)
    gone = _subject_gone(state, now)
    if gone is not None:
        return gone
    assert state.member is not None  # or its subject were gone
    steps = {"Running": _running, "Done": _done, "Missed": _done, "Undoing": _undoing}
    return steps.get(phase, _open)(state, state.member, now)


def _same(state: ProposalState) -> Step:
    status = state.proposal.status
    ready = find_condition(status.conditions, ConditionType.READY)
    return Step(status.phase, Why(known_reason(status.reason), ready.message if ready is not None else ""))


def _subject_gone(state: ProposalState, now: datetime) -> Step | None:
    proposal, member = state.proposal, state.member
    spec, known = proposal.spec, proposal.status.evidence
    if member is not None and known is not None and known.expert_uid != member.expert.metadata.uid:
        message = f"{spec.expert} was deleted and made again, and the proposal was about the Expert of before"
        return _finished("Void", Why(Reason.SUBJECT_GONE, message), now)
    if member is not None:
        return None
    what = f"pool {spec.pool}" if state.pool is None else f"Expert {spec.expert} in pool {spec.pool}"
    why = Why(Reason.SUBJECT_GONE, f"there is no {what}: create it, or delete this proposal")
    created = proposal.metadata.creation_timestamp
    left = (created + SUBJECT_AWAITED - now).total_seconds() if created is not None else 0.0
    if known is None and left > 0:
        return Step("Open", why, wait=left)
    return _finished("Void", why, now)


def _open(state: ProposalState, member: Member, now: datetime) -> Step:
    """Decide whether the proposal may start."""
    proposal, policy = state.proposal, ACTS[state.proposal.spec.act]
    approval, left = proposal.spec.approval, (_expires(proposal) - now).total_seconds()
    found, by_policy = _rests_on(proposal, member, policy, now)
    if approval is not None and approval.decision == "Rejected":
        comment = f": {approval.comment}" if approval.comment else ""
        return _finished("Rejected", Why(Reason.REJECTED, f"a person rejected it{comment}"), now)
    if proposal.spec.undo:
        return _finished(
            "Rejected", Why(Reason.REJECTED, "spec.undo was set before it started, so it never starts"), now
        )
    if left <= 0:
        return _finished("Expired", Why(Reason.EXPIRED, f"it was not started by {_expires(proposal)}"), now)
    if found is None:
        message = "what it rests on no longer holds; if it holds again, the proposal opens again"
        since = proposal.status.finished if proposal.status.phase == "Superseded" else _text(now)
        return Step("Superseded", Why(Reason.EVIDENCE_CHANGED, message), {"finished": since}, left)
    if isinstance(found, Why):
        return Step("Open", found, {"evidence": None, "expected": None, "patch": ""}, left)
    evidence, changes = _recorded(proposal, policy, member, found, now)
    if not by_policy and approval is None:
        why = Why(Reason.AWAITING_APPROVAL, f"{evidence.summary}. Approve it: {_how(proposal)}")
        return Step("Open", why, changes, left)
    if not by_policy and approval is not None and approval.evidence != evidence.digest:
        message = (
            f"spec.approval.evidence is {approval.evidence[:19]}…, and the evidence is {evidence.digest[:19]}… now: "
            f"{evidence.summary}. Approve it again: {_how(proposal)}"
        )
        return Step("Open", Why(Reason.APPROVAL_VOID, message), changes, left)
    changes["approved_by"] = "Policy" if by_policy else "Person"
    waits = _waits(state, member, now)
    if waits is not None:
        return Step("Approved", waits[0], changes, min(left, waits[1]))
    started = {"started": _text(now), "finished": None}
    return Step("Running", Why(Reason.PROGRESSING, evidence.summary), changes | started)


def _rests_on(
    proposal: ExpertProposal, member: Member, policy: Policy, now: datetime
) -> tuple[Found | Why | None, bool]:
    """Return what a proposal rests on now, and whether the policy approves it.

    None if the operator made it and would not make it now; why it cannot be done if a person made it.
    """
    found = policy.trigger(member, now)
    if found is not None:
        digest = evidence_of(policy.act, member, found, now).digest
        same = proposal.spec.revision in (None, found.parent)
        if same and proposal.metadata.name == proposal_name(member.expert.metadata.name, policy.act, digest):
            return found, mode_for(policy.act, member.pool, member.expert) == "Auto"
    if proposal.metadata.labels.get(labels.MANAGED_BY) == labels.FIELD_MANAGER:
        return None, False
    return policy.asked(member, proposal.spec, now), False


def _recorded(
    proposal: ExpertProposal, policy: Policy, member: Member, found: Found, now: datetime
) -> tuple[ProposalEvidence, dict[str, Any]]:
    """Return the evidence and the promise. Those that are recorded stay as long as the evidence has the same digest."""
    evidence, before = evidence_of(policy.act, member, found, now), proposal.status
    if before.evidence is not None and before.evidence.digest == evidence.digest:
        return before.evidence, {"finished": None}
    promised = found.expected if isinstance(found.expected, Effect) else None
    absent = {} if promised is not None else {"expected": str(found.expected)}
    return evidence, {"evidence": evidence, "expected": promised, "absent": absent, "finished": None}


def _waits(state: ProposalState, member: Member, now: datetime) -> tuple[Why, float] | None:
    """Return why an approved proposal does not start yet, and in how many seconds to look again; None if it may."""
    busy = _busy(state, member)
    if busy is not None:
        return busy, PROPOSAL_LIFE.total_seconds()
    budget, since = member.pool.spec.lifecycle.budget, now - BUDGET_PERIOD
    own = [item for item in state.others if item.spec.expert == state.proposal.spec.expert]
    for name, limit, proposals in (
        ("perExpert", budget.per_expert, own),
        ("perPool", budget.per_pool, state.others),
    ):
        times = started_since(proposals, since)
        if len(times) >= limit:
            message = (
                f"{len(times)} proposals started within 24 hours, of at most spec.lifecycle.budget.{name} = {limit} of pool "
                f"{member.pool.metadata.name}"
            )
            freed = times[len(times) - limit] + BUDGET_PERIOD - now if times and limit else PROPOSAL_LIFE
            return Why(Reason.WAITING_FOR_BUDGET, message), freed.total_seconds()
    return None


def _busy(state: ProposalState, member: Member) -> Why | None:
    """Return what else is being done with the Expert, or why nothing may be done with it now; None if it is free."""
    expert = member.expert
    name = expert.metadata.name
    if expert.spec.paused or member.pool.spec.paused:
        whose = f"Expert {name}" if expert.spec.paused else f"pool {member.pool.metadata.name}"
        return Why(Reason.PAUSED, f"spec.paused of {whose} is true")
    other = next(
        (
            item.metadata.name
            for item in state.others
            if item.spec.expert == name and item.status.phase in ("Running", "Undoing")
        ),
        None,
    )
    if other is not None:
        return Why(Reason.WAITING_FOR_TURN, f"proposal {other} is being carried out with {name}")
    made = next((item for item in member.revisions if _is_being_made(item)), None)
    if made is not None:
        return Why(Reason.WAITING_FOR_TURN, f"{made.metadata.name} is being made")
    return None


def _is_being_made(revision: ExpertRevision) -> bool:
    return revision.status.verdict is None and revision.status.phase != "Superseded"


def _running(state: ProposalState, member: Member, now: datetime) -> Step:
    """Look how far the Expert's plan has come with it."""
    proposal, policy = state.proposal, ACTS[state.proposal.spec.act]
    evidence = proposal.status.evidence
    if evidence is None:
        return _finished("Void", Why(Reason.NOT_POSSIBLE, "its evidence is gone from its status"), now)
    if policy.cause is None:
        current = current_of(member)
        if current is not None and current.metadata.name == evidence.parent:
            return _ended(state, member, policy, evidence.parent, now)
        return Step("Running", Why(Reason.PROGRESSING, f"going back to {evidence.parent}"))
    made = _made(member, policy, evidence)
    if made is None:
        if proposal.spec.undo:
            return _finished("Undone", Why(Reason.UNDONE, "it was undone before a revision was made"), now)
        return Step("Running", Why(Reason.PROGRESSING, "a revision is being created"))
    name, verdict = made.metadata.name, made.status.verdict
    if verdict is None and proposal.spec.undo:
        return _finished("Undone", Why(Reason.UNDONE, f"it was undone before {name} was decided"), now)
    if verdict is None:
        words = f"{name} is {made.status.phase or 'being created'}"
        return Step("Running", Why(Reason.PROGRESSING, words), {"revision": name})
    if verdict.outcome not in ("Promoted", "Withdrawn"):
        why = Why(
            known_reason(verdict.reason), f"{name} did not become the current revision: {verdict.message}"
        )
        return _finished(
            "Missed", why, now, {"revision": name, **_effect(member, policy, proposal, name, now)}
        )
    current = current_of(member)
    if verdict.outcome == "Promoted" and (current is None or current.metadata.name != name):
        # The demand has to stand until the Expert's plan has moved the pointer.
        words = f"{name} becomes the current revision"
        return Step("Running", Why(Reason.PROGRESSING, words), {"revision": name})
    return _ended(state, member, policy, name, now)


def _made(member: Member, policy: Policy, evidence: ProposalEvidence) -> ExpertRevision | None:
    """Return the revision that was made for a proposal, or None. A newer snapshot may have come before it was created."""
    text = new_text(member)
    snapshots = [evidence.snapshot, text[0] if text is not None else None]
    found = (
        made_for(member, policy.cause, evidence.parent, item)
        for item in snapshots
        if policy.cause is not None and item is not None
    )
    return next((revision for revision in found if revision is not None), None)


def _ended(state: ProposalState, member: Member, policy: Policy, revision: str, now: datetime) -> Step:
    changes = {"revision": revision, "finished": state.proposal.status.finished or _text(now)}
    proposal = state.proposal.model_copy(update={"status": state.proposal.status.model_copy(update=changes)})
    return _verified(proposal, member, policy, changes, now)


def _verified(
    proposal: ExpertProposal, member: Member, policy: Policy, changes: dict[str, Any], now: datetime
) -> Step:
    """Compare the measured effect with the promised one, if both are known."""
    revision, expected = proposal.status.revision or "", proposal.status.expected
    effect = _effect(member, policy, proposal, revision, now)
    measured, absent = effect.get("measured"), effect["absent"]
    changes = changes | effect
    done = f"{revision} is the current revision"
    if expected is None or "measured" in absent:
        why = absent.get("expected") or absent.get("measured") or "nothing was promised"
        return Step("Done", Why(Reason.EFFECT_UNKNOWN, f"{done}. Its effect is not judged: {why}"), changes)
    if measured is None:
        words = f"{done}. Its effect is measured over the day that follows"
        return Step("Done", Why(Reason.EFFECT_UNKNOWN, words), changes, _MEASURED_AGAIN)
    words = f"{done}. {_compared(expected, measured)}"
    if measured.interval.lower <= expected.interval.upper:
        return Step("Done", Why(Reason.EFFECT_SEEN, words), changes)
    return Step("Missed", Why(Reason.EFFECT_NOT_SEEN, words), changes)


def _effect(
    member: Member, policy: Policy, proposal: ExpertProposal, revision: str, now: datetime
) -> dict[str, Any]:
    """Return the measured effect and what of the effects is absent, for the status."""
    before = proposal.status
    if before.measured is not None or "measured" in before.absent:
        return {"measured": before.measured, "absent": before.absent}
    seen = proposal.model_copy(update={"status": before.model_copy(update={"revision": revision})})
    measured = policy.measured(member, seen, now)
    if isinstance(measured, str):
        return {"absent": {**before.absent, "measured": measured}}
    return {"measured": measured, "absent": before.absent}


def _compared(expected: Effect, measured: Effect) -> str:
    want, have = expected.interval, measured.interval
    return (
        f"{expected.quantity}: promised {want.value:+.4f} [{want.lower:+.4f}, {want.upper:+.4f}], measured {have.value:+.4f} "
        f"[{have.lower:+.4f}, {have.upper:+.4f}]"
    )


def _done(state: ProposalState, member: Member, now: datetime) -> Step:
    """Measure what was done, as soon as it can be; or begin to undo it."""
    proposal, policy = state.proposal, ACTS[state.proposal.spec.act]
    if proposal.spec.undo:
        return _undo(state, member, policy, now)
    if proposal.status.phase == "Missed":
        return _same(state)
    return _verified(proposal, member, policy, {}, now)


def _undo(state: ProposalState, member: Member, policy: Policy, now: datetime) -> Step:
    """Begin to undo, unless nothing was changed, or the Expert has changed since."""
    proposal, current = state.proposal, current_of(member)
    acted = by_name(member.revisions).get(proposal.status.revision or "")
    if acted is None or not is_promoted(acted):
        name = proposal.status.revision or "a revision"
        return _finished("Undone", Why(Reason.UNDONE, f"{name} is not promoted, so nothing is changed"), now)
    if current is None or current.metadata.name != acted.metadata.name:
        there = current.metadata.name if current is not None else "none"
        message = (
            f"it cannot be undone: the current revision is {there} now, and {acted.metadata.name} was when it was done. To go "
            f"back, propose RollBack, or set spec.revision of {proposal.spec.expert}"
        )
        return Step(proposal.status.phase, Why(Reason.UNDO_REFUSED, message))
    if policy.cause is not None and not any(
        is_promoted(item) and item.metadata.name != acted.metadata.name for item in member.revisions
    ):
        message = f"it cannot be undone: no other revision of {proposal.spec.expert} is promoted any more"
        return Step(proposal.status.phase, Why(Reason.UNDO_REFUSED, message))
    return Step("Undoing", Why(Reason.PROGRESSING, f"what {acted.metadata.name} changed is being undone"))


def _undoing(state: ProposalState, member: Member, now: datetime) -> Step:
    current, revision = current_of(member), state.proposal.status.revision
    if current is None or current.metadata.name == revision:
        return _same(state)
    message = f"{current.metadata.name} is the current revision again"
    return _finished("Undone", Why(Reason.UNDONE, message), now)


def _finished(phase: str, why: Why, now: datetime, changes: dict[str, Any] | None = None) -> Step:
    return Step(phase, why, {"finished": _text(now), **(changes or {})})


def _expires(proposal: ExpertProposal) -> datetime:
    """Return when a proposal expires: by its spec, or some days after it was created."""
    created = proposal.metadata.creation_timestamp
    return _time(proposal.spec.expires) or (created or _EPOCH) + PROPOSAL_LIFE


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _how(proposal: ExpertProposal) -> str:
    return f"moectl approve {proposal.metadata.name} -n {proposal.metadata.namespace}"


def _time(text: str | None) -> datetime | None:
    """Return the time that a text says, or None if it says none."""
    try:
        time = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return time if time is not None and time.utcoffset() is not None else None


def _text(time: datetime) -> str:
    return (time - timedelta(microseconds=time.microsecond)).isoformat()
