"""What an act consists of: when it is proposed, what a proposal of it rests on, and what it promises."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from moe_formats.format import canonical_json, digest_of
from moe_formats.job_report import Decision, Interval
from moe_formats.resources.expert_proposal import Effect, ExpertProposal, ExpertProposalSpec, ProposalEvidence
from moe_formats.resources.expert_revision import Cause, ExpertRevision
from moe_formats.resources.lifecycle import Act
from moe_formats.resources.reasons import Reason
from moe_operator.planner.conditions import Why
from moe_operator.planner.lineage import current_of
from moe_operator.state import Member

#: What acts that change weights promise and are measured by.
CHANGE_OF_BITS = "mean ln(bits per byte after / before) on the newest holdout"


@dataclass(frozen=True)
class Found:
    """What a proposal rests on and promises, as things are now."""

    current: ExpertRevision
    #: Revision that training starts from, or that becomes the current one.
    parent: str
    #: Why it should be done, as a sentence for people, with the numbers.
    summary: str
    #: The promised effect, or why nothing can be promised.
    expected: Effect | str
    #: Snapshot that would be trained on; None if nothing is trained.
    snapshot: str | None = None
    #: Digests of the holdouts that were measured on.
    windows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Policy:
    """One act."""

    act: Act
    #: Cause of the revision that it demands; None if it makes no revision.
    cause: Cause | None
    #: Returns what the operator would propose now, or None.
    trigger: Callable[[Member, datetime], Found | None]
    #: Returns what a person's proposal rests on now, or why it cannot be done.
    asked: Callable[[Member, ExpertProposalSpec, datetime], Found | Why]
    #: Returns the promised quantity, measured after the act; a reason if it never will be, None if it is not known yet.
    measured: Callable[[Member, ExpertProposal, datetime], Effect | str | None]


def evidence_of(act: Act, member: Member, found: Found, now: datetime) -> ProposalEvidence:
    """Return what a proposal records of what it rests on. Words and times are not part of the digest."""
    artefact, verdict = found.current.status.artefact, found.current.status.verdict
    rests_on = {
        "act": act.value,
        "expertUID": member.expert.metadata.uid,
        "current": artefact.digest if artefact is not None else found.current.metadata.name,
        "parent": found.parent,
        "snapshot": found.snapshot,
        "windows": list(found.windows),
    }
    return ProposalEvidence(
        digest=digest_of(canonical_json(rests_on)),
        summary=found.summary[:2048],
        expert_uid=member.expert.metadata.uid,
        current=found.current.metadata.name,
        promoted=verdict.time if verdict is not None else "",
        parent=found.parent,
        snapshot=found.snapshot,
        windows=list(found.windows),
        time=now.replace(microsecond=0).isoformat(),
    )


def new_text(member: Member) -> tuple[str, tuple[str, ...]] | None:
    """Return the digests of the Expert's newest snapshot and of its holdouts; None before the first snapshot."""
    snapshot = member.expert.status.snapshot
    if snapshot is None:
        return None
    windows = [window.digest for window in (snapshot.anchor, snapshot.newest) if window is not None]
    return snapshot.digest, tuple(windows)


def current_or_why(member: Member) -> ExpertRevision | Why:
    """Return the current revision, or why nothing can be done with an Expert that has none."""
    current = current_of(member)
    if current is None:
        name = member.expert.metadata.name
        return Why(Reason.NOT_POSSIBLE, f"{name} has no promoted revision yet, so there is nothing to change")
    return current


def made_for(member: Member, cause: Cause, parent: str, snapshot: str | None) -> ExpertRevision | None:
    """Return the newest revision of a cause that starts from a parent and was trained on a snapshot, or None."""
    for revision in reversed(member.revisions):
        inputs = revision.spec.inputs
        starts = inputs.parent.revision if inputs.parent is not None else None
        if revision.spec.cause is cause and starts == parent and inputs.data.digest == snapshot:
            return revision
    return None


def was_tried(member: Member, cause: Cause, found: Found) -> bool:
    """Return whether the gate has decided about a revision that would be made again."""
    made = made_for(member, cause, found.parent, found.snapshot)
    return made is not None and made.status.verdict is not None


def measured_change(member: Member, revision: str | None) -> Effect | str | None:
    """Return how bits per byte changed from the current revision to one that was made, by the gate's own comparison."""
    made = next((item for item in member.revisions if item.metadata.name == revision), None)
    if made is None or made.status.verdict is None:
        return None
    evidence = made.status.evidence
    decision = newest_decision(evidence.decisions) if evidence is not None else None
    if decision is None:
        return f"{revision} was not measured: {made.status.verdict.message}"[:1024]
    return Effect(quantity=CHANGE_OF_BITS, scale="Logarithm", interval=decision.interval)


def newest_decision(decisions: list[Decision]) -> Decision | None:
    """Return the comparison on the newest holdout: on the window, or on the anchor if that is the newest."""
    by_role = {decision.role: decision for decision in decisions}
    return by_role.get("window") or by_role.get("anchor")


def rounded(value: float, lower: float, upper: float) -> Interval:
    """Return an interval with four significant digits, so that equal evidence gives equal text."""
    return Interval(value=_four(value), lower=_four(lower), upper=_four(upper))


def _four(number: float) -> float:
    return float(f"{number:.4g}")
