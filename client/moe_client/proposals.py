"""Says in words what a proposal is about and what can be decided about it. Pure."""

import json
from collections.abc import Iterator
from typing import Any, Literal

from moe_client.errors import Undecidable
from moe_formats.resources.conditions import ConditionType, find_condition
from moe_formats.resources.expert_proposal import FINISHED, Effect, ExpertProposal
from moe_formats.resources.lifecycle import Act
from moe_formats.resources.reasons import Reason

Decision = Literal["Approved", "Rejected"]

#: Phases in which it can still be decided whether it starts. Empty: the operator has not looked at it yet.
UNDECIDED = frozenset({"", "Open", "Approved", "Superseded", "Error"})
#: Phases in which a proposal is over. One that is Superseded may open again, but nothing can be decided about it until then.
OVER = FINISHED | {"Superseded"}
#: Phases in which something has been done, which can be undone.
STARTED = frozenset({"Running", "Done", "Missed"})


def story(proposal: ExpertProposal) -> Iterator[str]:
    """Yield what a proposal is about, line by line: what and why, what it promises, what came of it, what can be decided."""
    yield from summary(proposal)
    yield from _decided(proposal)
    status = proposal.status
    if status.revision:
        yield f"Revision: {status.revision}."
    if status.patch and status.phase in STARTED | {"Open", "Approved"}:
        yield "In Git, this says the same:"
        yield from (f"  {line}" for line in status.patch.splitlines())
    yield from what_next(proposal, with_kubectl=True)


def summary(proposal: ExpertProposal) -> Iterator[str]:
    """Yield what a proposal is about, where it is, what it rests on and what it promises."""
    spec, status = proposal.spec, proposal.status
    to = f" to {spec.revision}" if spec.revision else ""
    yield f"Proposal {proposal.metadata.name}: {spec.act}{to} of Expert {spec.expert} in pool {spec.pool}."
    if spec.comment:
        yield f"Comment: {spec.comment}"
    yield f"It is {state(proposal)}."
    if evidence := status.evidence:
        yield f"Why: {_sentence(evidence.summary)}"
        yield f"It rests on: {_rests_on(proposal)}."
        yield f"Evidence: {evidence.digest}, recorded {evidence.time}."
    if status.expected:
        yield f"Promised: {effect(status.expected)}"
    if status.measured:
        yield f"Measured: {effect(status.measured)}"
    known = {"expected": "Nothing is promised", "measured": "Not measured"}
    yield from (f"{known.get(name, name)}: {_sentence(why)}" for name, why in status.absent.items())
    if status.expires and status.phase in UNDECIDED:
        yield f"It expires at {status.expires} if it has not started by then."


def state(proposal: ExpertProposal) -> str:
    """Return the phase, the reason and the message of a proposal, without a full stop."""
    status = proposal.status
    if not status.phase:
        return "not looked at by the operator yet"
    ready = find_condition(status.conditions, ConditionType.READY)
    message = ready.message if ready is not None else ""
    # What it rests on and how to approve it are lines of their own.
    if status.reason == Reason.AWAITING_APPROVAL:
        message = "it waits for a person"
    reason = f" ({status.reason})" if status.reason != status.phase else ""
    return f"{status.phase}{reason}" + (f": {message.rstrip('.')}" if message else "")


def effect(value: Effect) -> str:
    """Return an effect in percent, as the column EFFECT has it, and what was measured."""
    return "{:+.1f} % [{:+.1f}, {:+.1f}]".format(*value.percent) + f", {value.quantity}. Below 0 is better."


def what_next(proposal: ExpertProposal, *, with_kubectl: bool = False) -> Iterator[str]:
    """Yield the commands by which something can be decided about a proposal as it is now."""
    status, name = proposal.status, _named(proposal)
    if status.phase == "Open" and status.evidence is not None:
        yield f"To approve it: moectl approve {name}"
        if with_kubectl:
            yield f"  or: {kubectl(proposal, decision(proposal, 'Approved'))}"
        yield f"To reject it: moectl reject {name}"
    elif status.phase == "Approved":
        yield f"To reject it before it starts: moectl reject {name}"
    elif status.phase in STARTED and not proposal.spec.undo:
        yield f"To undo it: moectl undo {name}"
        if with_kubectl:
            yield f"  or: {kubectl(proposal, UNDO)}"


#: The change that undoes a proposal.
UNDO: dict[str, Any] = {"spec": {"undo": True}}


def decision(proposal: ExpertProposal, wanted: Decision, comment: str = "") -> dict[str, Any]:
    """Return the change that records a decision, which quotes the evidence that the proposal has now."""
    evidence = proposal.status.evidence
    assert evidence is not None, "callers make sure that there is evidence to decide on"
    approval: dict[str, Any] = {"decision": wanted, "evidence": evidence.digest}
    earlier = proposal.spec.approval
    if comment or (earlier is not None and earlier.comment):
        approval["comment"] = comment  # also if it is empty, or that of an earlier decision would stay
    return {"spec": {"approval": approval}}


def kubectl(proposal: ExpertProposal, change: dict[str, Any]) -> str:
    """Return the command of kubectl that makes a change to a proposal."""
    return f"kubectl patch eprop {_named(proposal)} --type=merge -p '{json.dumps(change, separators=(',', ':'))}'"


def already(proposal: ExpertProposal, wanted: Decision) -> str:
    """Return that a proposal is decided as wanted, and by whom; empty if it is not."""
    status, approval, name = proposal.status, proposal.spec.approval, proposal.metadata.name
    quoted = (
        approval is not None and status.evidence is not None and approval.evidence == status.evidence.digest
    )
    if wanted == "Rejected":
        rejected = approval is not None and approval.decision == "Rejected"
        return f"{name} is rejected already." if rejected or status.phase == "Rejected" else ""
    if approval is not None and approval.decision == "Rejected":
        return ""
    if status.phase in ("Approved", "Running"):
        who = "the pool's policy" if status.approved_by == "Policy" else "a person"
        return f"{name} is approved already, by {who}. It is {state(proposal)}."
    return (
        f"{name} is approved already. The operator has yet to look at that."
        if quoted and status.phase == "Open"
        else ""
    )


def check_undecided(proposal: ExpertProposal, wanted: Decision, evidence: str | None = None) -> None:
    """Raise Undecidable unless a proposal can be approved or rejected now, on the evidence that was seen earlier."""
    name, status, approval = proposal.metadata.name, proposal.status, proposal.spec.approval
    verb = {"Approved": "approved", "Rejected": "rejected"}[wanted]
    if status.phase not in UNDECIDED:
        undo = f" To undo it: moectl undo {_named(proposal)}" if status.phase in STARTED else ""
        raise Undecidable(f"{name} can no longer be {verb}: it is {state(proposal)}.{undo}")
    if not status.phase:
        raise Undecidable(
            f"{name} cannot be {verb} yet: the operator has not looked at it. Try again in a moment"
        )
    if wanted == "Approved" and approval is not None and approval.decision == "Rejected":
        raise Undecidable(f"{name} cannot be approved: it was rejected")
    if status.evidence is None or (wanted == "Approved" and status.phase != "Open"):
        delete = (
            f". To get rid of it: kubectl delete eprop {_named(proposal)}" if wanted == "Rejected" else ""
        )
        raise Undecidable(f"{name} cannot be {verb} as things are now: it is {state(proposal)}{delete}")
    if evidence is not None and evidence != status.evidence.digest:
        raise Undecidable(
            f"{name} rests on other evidence than the one given: --evidence {evidence}, and it is {status.evidence.digest} now. "
            f"Read it again: moectl proposals {_named(proposal)}"
        )


def check_started(proposal: ExpertProposal) -> None:
    """Raise Undecidable unless there is something to undo."""
    name, status = proposal.metadata.name, proposal.status
    if status.phase not in STARTED:
        reject = (
            f" To have it never start: moectl reject {_named(proposal)}" if status.phase in UNDECIDED else ""
        )
        raise Undecidable(f"there is nothing to undo: {name} is {state(proposal)}.{reject}")


def _rests_on(proposal: ExpertProposal) -> str:
    evidence = proposal.status.evidence
    assert evidence is not None, "the caller has looked"
    then = "would be after it" if proposal.spec.act is Act.ROLL_BACK else "is what training starts from"
    return f"{evidence.current} was the current revision, and {evidence.parent} {then}"


def _decided(proposal: ExpertProposal) -> Iterator[str]:
    approval, status = proposal.spec.approval, proposal.status
    if approval is not None:
        comment = f", with the comment: {approval.comment}" if approval.comment else "."
        yield f"A person decided: {approval.decision}, on evidence {approval.evidence}{comment}"
    if status.approved_by == "Policy":
        yield "The pool's policy approved it."
    if status.started:
        yield f"It started at {status.started}" + (
            f" and ended at {status.finished}." if status.finished else "."
        )


def _named(proposal: ExpertProposal) -> str:
    """Return the name and the option of its namespace, as a command has them."""
    return f"{proposal.metadata.name} -n {proposal.metadata.namespace}"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
