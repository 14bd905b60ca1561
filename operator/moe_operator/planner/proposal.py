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

from datetime import datetime
from typing import Any

from moe_formats.resources import labels
from moe_formats.resources.expert_proposal import (
    Effect,
    ExpertProposal,
    ProposalEvidence,
)
from moe_formats.resources.reasons import Reason
from moe_operator.config import OperatorConfig
from moe_operator.planner.acts import ACTS
from moe_operator.planner.acts.policy import Found, Policy, evidence_of
from moe_operator.planner.conditions import Why
from moe_operator.planner.modes import mode_for
from moe_operator.planner.names import proposal_name
from moe_operator.planner.proposal_course import (
    Step,
    done,
    finished,
    running,
    text_of,
    unchanged,
    undoing,
)
from moe_operator.planner.proposal_start import time_of, why_not_yet
from moe_operator.planner.proposal_status import proposal_events, proposal_status
from moe_operator.planner.status_writes import status_write
from moe_operator.planner.times import PROPOSAL_LIFE, SUBJECT_AWAITED
from moe_operator.state import Member, Plan, ProposalState


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


def _next(state: ProposalState, now: datetime) -> Step:
    phase = state.proposal.status.phase
    if phase in ("Rejected", "Expired", "Void", "Undone"):
        return unchanged(state)
    gone = _subject_gone(state, now)
    if gone is not None:
        return gone
    assert state.member is not None  # or its subject were gone
    steps = {"Running": running, "Done": done, "Missed": done, "Undoing": undoing}
    return steps.get(phase, _open)(state, state.member, now)


def _subject_gone(state: ProposalState, now: datetime) -> Step | None:
    proposal, member = state.proposal, state.member
    spec, known = proposal.spec, proposal.status.evidence
    if member is not None and known is not None and known.expert_uid != member.expert.metadata.uid:
        message = f"{spec.expert} was deleted and made again, and the proposal was about the Expert of before"
        return finished("Void", Why(Reason.SUBJECT_GONE, message), now)
    if member is not None:
        return None
    what = f"pool {spec.pool}" if state.pool is None else f"Expert {spec.expert} in pool {spec.pool}"
    why = Why(Reason.SUBJECT_GONE, f"there is no {what}: create it, or delete this proposal")
    created = proposal.metadata.creation_timestamp
    left = (created + SUBJECT_AWAITED - now).total_seconds() if created is not None else 0.0
    if known is None and left > 0:
        return Step("Open", why, wait=left)
    return finished("Void", why, now)


def _open(state: ProposalState, member: Member, now: datetime) -> Step:
    """Decide whether the proposal may start."""
    proposal, policy = state.proposal, ACTS[state.proposal.spec.act]
    approval, left = proposal.spec.approval, (_expires(proposal) - now).total_seconds()
    found, by_policy = _rests_on(proposal, member, policy, now)
    if approval is not None and approval.decision == "Rejected":
        comment = f": {approval.comment}" if approval.comment else ""
        return finished("Rejected", Why(Reason.REJECTED, f"a person rejected it{comment}"), now)
    if proposal.spec.undo:
        return finished(
            "Rejected", Why(Reason.REJECTED, "spec.undo was set before it started, so it never starts"), now
        )
    if left <= 0:
        return finished("Expired", Why(Reason.EXPIRED, f"it was not started by {_expires(proposal)}"), now)
    if found is None:
        message = "what it rests on no longer holds; if it holds again, the proposal opens again"
        since = proposal.status.finished if proposal.status.phase == "Superseded" else text_of(now)
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
    waits = why_not_yet(state, member, now)
    if waits is not None:
        return Step("Approved", waits[0], changes, min(left, waits[1]))
    started = {"started": text_of(now), "finished": None}
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


def _expires(proposal: ExpertProposal) -> datetime:
    """Return when a proposal expires: by its spec, or some days after it was created."""
    created = proposal.metadata.creation_timestamp
    return time_of(proposal.spec.expires) or (created or _EPOCH) + PROPOSAL_LIFE


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _how(proposal: ExpertProposal) -> str:
    return f"moectl approve {proposal.metadata.name} -n {proposal.metadata.namespace}"
