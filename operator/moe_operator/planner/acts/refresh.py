"""Refresh: train the current revision on new data that a refresh has read.

Proposed only in a pool whose mode for it is not Auto: in mode Auto, the data itself demands the revision (``demand.py``),
since spec.data.refresh of the Expert has asked for it.
"""

from datetime import datetime

from moe_formats.resources.expert_proposal import Effect, ExpertProposal, ExpertProposalSpec
from moe_formats.resources.expert_revision import Cause
from moe_formats.resources.lifecycle import Act
from moe_formats.resources.reasons import Reason
from moe_operator.planner.acts.policy import (
    CHANGE_OF_BITS,
    Found,
    Policy,
    current_or_why,
    measured_change,
    new_text,
    newest_decision,
    rounded,
    was_tried,
)
from moe_operator.planner.conditions import Why
from moe_operator.state import Member


def _trigger(member: Member, now: datetime) -> Found | None:
    if member.pool.spec.lifecycle.mode(Act.REFRESH) == "Auto":
        return None
    found = _found(member)
    if isinstance(found, Why):
        return None
    return found if not was_tried(member, Cause.NEW_DATA, found) else None


def _asked(member: Member, spec: ExpertProposalSpec, now: datetime) -> Found | Why:
    return _found(member)


def _found(member: Member) -> Found | Why:
    current, text = current_or_why(member), new_text(member)
    if isinstance(current, Why):
        return current
    name = current.metadata.name
    if text is None or text[0] == current.spec.inputs.data.digest:
        return Why(Reason.NOT_POSSIBLE, f"{name} was trained on the newest snapshot, so there is no new data")
    snapshot = member.expert.status.snapshot
    assert snapshot is not None  # or there were no text
    summary = (
        f"the newest snapshot {snapshot.digest[:19]} has {snapshot.documents} documents and {snapshot.train_bytes} bytes to "
        f"train on; {name} was trained on {current.spec.inputs.data.digest[:19]}"
    )
    return Found(current, name, summary, _promise(member), snapshot=text[0], windows=text[1])


def _promise(member: Member) -> Effect | str:
    """Return what the last refresh that was promoted changed, which is the best guess at what the next one will."""
    for revision in reversed(member.revisions):
        verdict, evidence = revision.status.verdict, revision.status.evidence
        if revision.spec.cause is not Cause.NEW_DATA or verdict is None or evidence is None:
            continue
        decision = newest_decision(evidence.decisions)
        if verdict.outcome == "Promoted" and decision is not None:
            change = decision.interval
            # The gate promotes new data only if it helps by delta: that much is promised.
            return Effect(
                quantity=CHANGE_OF_BITS,
                scale="Logarithm",
                interval=rounded(change.value, min(change.lower, 2 * change.value), -evidence.delta),
            )
    return "no refresh of this Expert has been promoted yet"


def _measured(member: Member, proposal: ExpertProposal, now: datetime) -> Effect | str | None:
    return measured_change(member, proposal.status.revision)


REFRESH = Policy(Act.REFRESH, Cause.NEW_DATA, _trigger, _asked, _measured)
