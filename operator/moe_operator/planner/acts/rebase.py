"""Rebase: train an Expert again from a newer revision of its base. spec.base.follow says whether it is proposed."""

from datetime import datetime
from math import expm1, log

from moe_formats.resources.expert_proposal import Effect, ExpertProposal, ExpertProposalSpec
from moe_formats.resources.expert_revision import Cause, ExpertRevision
from moe_formats.resources.lifecycle import Act
from moe_formats.resources.reasons import Reason
from moe_operator.planner.acts.policy import (
    CHANGE_OF_BITS,
    Found,
    Policy,
    current_or_why,
    measured_change,
    new_text,
    rounded,
    was_tried,
)
from moe_operator.planner.base import pinned_base
from moe_operator.planner.conditions import Why
from moe_operator.state import Member


def _trigger(member: Member, now: datetime) -> Found | None:
    if (member.expert.spec.base.follow or "Pinned") == "Pinned":
        return None
    found = _found(member)
    if isinstance(found, Why):
        return None
    return found if not was_tried(member, Cause.REBASE, found) else None


def _asked(member: Member, spec: ExpertProposalSpec, now: datetime) -> Found | Why:
    return _found(member)


def _found(member: Member) -> Found | Why:
    current, text, base = current_or_why(member), new_text(member), member.base_revision
    if isinstance(current, Why):
        return current
    pinned = pinned_base(member)
    if pinned is None or base is None or text is None:
        name = member.expert.metadata.name
        return Why(Reason.NOT_POSSIBLE, f"{name} does not start from an Expert with a promoted revision")
    if base.status.artefact is None or pinned.digest == base.status.artefact.digest:
        return Why(
            Reason.NOT_POSSIBLE, f"{current.metadata.name} starts from {pinned.revision}, the newest there is"
        )
    name = base.metadata.name
    summary = f"{current.metadata.name} starts from {pinned.revision}, and {name} was promoted since"
    promise = _promise(member, member.base_revisions.get(pinned.revision), base, current)
    if isinstance(promise, Effect):
        share = expm1(promise.interval.value)
        than = f"{abs(share):.1%} {'fewer' if share < 0 else 'more'} bits per byte than {pinned.revision}"
        summary += f"; on the text of {member.expert.spec.domain}, {name} needs {than}"
    return Found(current, name, summary, promise, snapshot=text[0], windows=text[1])


def _promise(
    member: Member, old: ExpertRevision | None, new: ExpertRevision, current: ExpertRevision
) -> Effect | str:
    """Return the promise that the Expert changes as its base did on the Expert's own domain, and at worst by +delta."""
    domain = member.expert.spec.domain
    if domain is None:
        return "the Expert has no domain that both revisions of its base were measured on"
    rows = [item.status.evidence.row if item and item.status.evidence else {} for item in (old, new)]
    before, after = (row.get(domain) for row in rows)
    if not before or not after:
        return f"the two revisions of the base were not both measured on domain {domain}"
    change, delta = log(after / before), current.status.evidence.delta if current.status.evidence else 0.0
    return Effect(
        quantity=CHANGE_OF_BITS,
        scale="Logarithm",
        interval=rounded(change, min(2 * change, change - delta), max(change, delta)),
    )


def _measured(member: Member, proposal: ExpertProposal, now: datetime) -> Effect | str | None:
    return measured_change(member, proposal.status.revision)


REBASE = Policy(Act.REBASE, Cause.REBASE, _trigger, _asked, _measured)
