"""Builds the status of a proposal: its conditions, its columns, what to commit in Git, and the events when it changes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from moe_formats.resources.conditions import Condition, ConditionType, merge_conditions
from moe_formats.resources.expert_proposal import Effect, ExpertProposal, ExpertProposalStatus
from moe_formats.resources.labels import API_VERSION
from moe_formats.resources.lifecycle import Act
from moe_formats.resources.reasons import Reason
from moe_operator.planner.conditions import Says, Why, kstatus, say
from moe_operator.state import Event

#: Phases in which nothing was done, and will not be.
_NOTHING_DONE = ("Rejected", "Expired", "Superseded")
#: Phases of which somebody should hear.
_WARN = ("Missed", "Void", "Expired")


def proposal_status(
    proposal: ExpertProposal, phase: str, why: Why, changes: Mapping[str, Any], *, now: datetime
) -> ExpertProposalStatus:
    """Return the whole new status: what it was, with the changes, the phase, and what follows from these."""
    status = proposal.status.model_copy(update=dict(changes))
    generation = proposal.metadata.generation
    return status.model_copy(
        update={
            "observed_generation": generation,
            "phase": phase,
            "reason": why.reason.value,
            "conditions": list(
                merge_conditions(
                    proposal.status.conditions, _conditions(proposal, status, phase, why), now=now
                )
            ),
            "effect": _effect(status),
            "patch": _patch(proposal, status),
        }
    )


def proposal_events(before: ExpertProposalStatus, after: ExpertProposalStatus, why: Why) -> tuple[Event, ...]:
    """Return the event for a new phase, or for a new reason in the same phase."""
    if (before.phase, before.reason) == (after.phase, after.reason):
        return ()
    kind: Literal["Normal", "Warning"] = "Warning" if after.phase in _WARN else "Normal"
    return (Event(why.reason, f"{after.phase}: {why.message}"[:1000], kind),)


def _conditions(
    proposal: ExpertProposal, status: ExpertProposalStatus, phase: str, why: Why
) -> list[Condition]:
    generation = proposal.metadata.generation
    done = phase in ("Done", "Missed", "Undone")
    work = why if phase in ("Running", "Undoing", "Approved") else None
    stop = why if phase == "Void" else None
    conditions = list(kstatus(ready=Says(done, *why), work=work, stop=stop, generation=generation))
    conditions.append(say(ConditionType.APPROVED, _approved(status, phase, why), generation=generation))
    if phase in ("Done", "Missed"):
        seen = {Reason.EFFECT_SEEN: True, Reason.EFFECT_UNKNOWN: None}.get(why.reason, False)
        known = why.reason if why.reason is not Reason.UNDO_REFUSED else Reason.EFFECT_UNKNOWN
        if why.reason is Reason.UNDO_REFUSED:
            seen = None if phase == "Done" else False
        conditions.append(
            say(ConditionType.EFFECT_SEEN, Says(seen, known, why.message), generation=generation)
        )
    return conditions


def _approved(status: ExpertProposalStatus, phase: str, why: Why) -> Says:
    if status.approved_by and phase != "Open":
        who = "the pool's policy" if status.approved_by == "Policy" else "a person"
        return Says(True, Reason.READY, f"approved by {who}")
    return Says(False, *why)


def _effect(status: ExpertProposalStatus) -> str:
    """Return the text of the EFFECT column."""
    if status.measured is not None:
        return f"measured {_words(status.measured)}"
    return f"promised {_words(status.expected)}" if status.expected is not None else ""


def _words(effect: Effect) -> str:
    """Return a change in per cent, with its interval."""
    value, lower, upper = effect.percent
    return f"{value:+.1f} % [{lower:+.1f}, {upper:+.1f}]"


def _patch(proposal: ExpertProposal, status: ExpertProposalStatus) -> str:
    """Return what to commit to say the same in Git: the Expert's pin for a RollBack, the approved proposal for other acts."""
    evidence, spec, metadata = status.evidence, proposal.spec, proposal.metadata
    if evidence is None:
        return ""
    if spec.act is Act.ROLL_BACK:
        lines = [
            f"apiVersion: {API_VERSION}",
            "kind: Expert",
            f"metadata: {{name: {spec.expert}, namespace: {metadata.namespace}}}",
            "spec:",
            f"  revision: {evidence.parent}",
        ]
    else:
        lines = [
            f"apiVersion: {API_VERSION}",
            "kind: ExpertProposal",
            f"metadata: {{name: {metadata.name}, namespace: {metadata.namespace}}}",
            "spec:",
            f"  pool: {spec.pool}",
            f"  expert: {spec.expert}",
            f"  act: {spec.act.value}",
            f"  approval: {{decision: Approved, evidence: '{evidence.digest}'}}",
        ]
    return "\n".join(lines) + "\n"
