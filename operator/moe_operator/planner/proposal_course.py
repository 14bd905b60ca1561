"""Follows a proposal from its start: until the Expert's plan has carried it out, its effect is measured, or it is undone."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from moe_formats.resources.conditions import ConditionType, find_condition
from moe_formats.resources.expert_proposal import Effect, ExpertProposal, ProposalEvidence
from moe_formats.resources.expert_revision import ExpertRevision
from moe_formats.resources.reasons import Reason
from moe_operator.planner.acts import ACTS
from moe_operator.planner.acts.policy import Policy, made_for, new_text
from moe_operator.planner.attempts import known_reason
from moe_operator.planner.conditions import Why
from moe_operator.planner.lineage import by_name, current_of, is_promoted
from moe_operator.state import Member, ProposalState

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


def unchanged(state: ProposalState) -> Step:
    """Return the step of a proposal to which nothing has happened."""
    status = state.proposal.status
    ready = find_condition(status.conditions, ConditionType.READY)
    return Step(status.phase, Why(known_reason(status.reason), ready.message if ready is not None else ""))


def finished(phase: str, why: Why, now: datetime, changes: dict[str, Any] | None = None) -> Step:
    """Return the step with which a proposal ends now."""
    return Step(phase, why, {"finished": text_of(now), **(changes or {})})


def running(state: ProposalState, member: Member, now: datetime) -> Step:
    """Look how far the Expert's plan has come with it."""
    proposal, policy = state.proposal, ACTS[state.proposal.spec.act]
    evidence = proposal.status.evidence
    if evidence is None:
        return finished("Void", Why(Reason.NOT_POSSIBLE, "its evidence is gone from its status"), now)
    if policy.cause is None:
        current = current_of(member)
        if current is not None and current.metadata.name == evidence.parent:
            return _ended(state, member, policy, evidence.parent, now)
        return Step("Running", Why(Reason.PROGRESSING, f"going back to {evidence.parent}"))
    made = _made(member, policy, evidence)
    if made is None:
        if proposal.spec.undo:
            return finished("Undone", Why(Reason.UNDONE, "it was undone before a revision was made"), now)
        return Step("Running", Why(Reason.PROGRESSING, "a revision is being created"))
    name, verdict = made.metadata.name, made.status.verdict
    if verdict is None and proposal.spec.undo:
        return finished("Undone", Why(Reason.UNDONE, f"it was undone before {name} was decided"), now)
    if verdict is None:
        words = f"{name} is {made.status.phase or 'being created'}"
        return Step("Running", Why(Reason.PROGRESSING, words), {"revision": name})
    if verdict.outcome not in ("Promoted", "Withdrawn"):
        why = Why(
            known_reason(verdict.reason), f"{name} did not become the current revision: {verdict.message}"
        )
        return finished(
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
    changes = {"revision": revision, "finished": state.proposal.status.finished or text_of(now)}
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


def done(state: ProposalState, member: Member, now: datetime) -> Step:
    """Measure what was done, as soon as it can be; or begin to undo it."""
    proposal, policy = state.proposal, ACTS[state.proposal.spec.act]
    if proposal.spec.undo:
        return _undo(state, member, policy, now)
    if proposal.status.phase == "Missed":
        return unchanged(state)
    return _verified(proposal, member, policy, {}, now)


def _undo(state: ProposalState, member: Member, policy: Policy, now: datetime) -> Step:
    """Begin to undo, unless nothing was changed, or the Expert has changed since."""
    proposal, current = state.proposal, current_of(member)
    acted = by_name(member.revisions).get(proposal.status.revision or "")
    if acted is None or not is_promoted(acted):
        name = proposal.status.revision or "a revision"
        return finished("Undone", Why(Reason.UNDONE, f"{name} is not promoted, so nothing is changed"), now)
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


def undoing(state: ProposalState, member: Member, now: datetime) -> Step:
    """Look whether the Expert's plan has taken back what was done."""
    current, revision = current_of(member), state.proposal.status.revision
    if current is None or current.metadata.name == revision:
        return unchanged(state)
    message = f"{current.metadata.name} is the current revision again"
    return finished("Undone", Why(Reason.UNDONE, message), now)


def text_of(time: datetime) -> str:
    """Return a time as statuses have it: RFC 3339, to the second."""
    return (time - timedelta(microseconds=time.microsecond)).isoformat()
