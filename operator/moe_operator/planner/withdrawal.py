"""Moves an Expert's pointer back for proposals: a promotion is taken back, and given again if that is undone.

A revision whose promotion was taken back has the verdict Withdrawn and the name of the proposal. It is not promoted any
more, so the newest revision that still is becomes the current one, and it is not trained again, like one that was refused.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from moe_formats.resources.expert_proposal import ExpertProposal
from moe_formats.resources.expert_revision import ExpertRevision, Verdict
from moe_formats.resources.lifecycle import Act
from moe_formats.resources.reasons import Reason
from moe_operator.planner.lineage import by_name, is_promoted
from moe_operator.state import ExpertState


def moved(state: ExpertState, now: datetime) -> ExpertState:
    """Return the state in which promotions are taken back, or given again, as the proposals that are carried out ask."""
    verdicts: dict[str, Verdict] = {}
    pointer: str | None = None
    for proposal in running(state):
        verdicts |= {item.metadata.name: verdict for item, verdict in _changed(proposal, state, now)}
        evidence = proposal.status.evidence
        if proposal.status.phase == "Undoing" and proposal.spec.act is Act.ROLL_BACK and evidence is not None:
            pointer = evidence.current
    if not verdicts and pointer is None:
        return state
    changed = tuple(_with_verdict(item, verdicts.get(item.metadata.name)) for item in state.revisions)
    return replace(state, revisions=changed, moved_to=pointer)


def running(state: ExpertState) -> list[ExpertProposal]:
    """Return the proposals about this very Expert that are being carried out or undone, oldest first."""
    uid = state.expert.metadata.uid
    own = [
        item
        for item in state.proposals
        if item.status.phase in ("Running", "Undoing")
        and item.status.evidence is not None
        and item.status.evidence.expert_uid == uid
    ]
    return sorted(own, key=lambda item: (item.status.started or "", item.metadata.name))


def _changed(
    proposal: ExpertProposal, state: ExpertState, now: datetime
) -> Iterator[tuple[ExpertRevision, Verdict]]:
    """Yield the revisions whose verdict a proposal changes, with the new one."""
    name, undoing = proposal.metadata.name, proposal.status.phase == "Undoing"
    if proposal.spec.act is Act.ROLL_BACK and not undoing:
        target = by_name(state.revisions).get(proposal.spec.revision or "")
        for revision in state.revisions if target is not None and is_promoted(target) else ():
            if is_promoted(revision) and target is not None and revision.spec.number > target.spec.number:
                yield revision, _withdrawn(proposal, revision, now)
    elif proposal.spec.act is Act.ROLL_BACK:
        for revision in state.revisions:
            verdict = revision.status.verdict
            if verdict is not None and verdict.outcome == "Withdrawn" and verdict.proposal == name:
                message = f"{revision.metadata.name} is promoted again, since proposal {name} was undone"
                yield revision, _verdict("Promoted", "all", Reason.PROMOTED, message, now)
    elif undoing:
        made = by_name(state.revisions).get(proposal.status.revision or "")
        if made is not None and is_promoted(made):
            yield made, _withdrawn(proposal, made, now)


def _withdrawn(proposal: ExpertProposal, revision: ExpertRevision, now: datetime) -> Verdict:
    name = proposal.metadata.name
    what = "is undone" if proposal.status.phase == "Undoing" else f"goes back to {proposal.spec.revision}"
    before = revision.status.verdict.message if revision.status.verdict is not None else ""
    message = f"proposal {name} {what}, so {revision.metadata.name} is no longer promoted. Before: {before}"
    return _verdict("Withdrawn", "proposal", Reason.WITHDRAWN, message, now).model_copy(
        update={"proposal": name}
    )


def _verdict(outcome: str, clause: str, reason: Reason, message: str, now: datetime) -> Verdict:
    return Verdict.model_validate(
        {
            "outcome": outcome,
            "clause": clause,
            "reason": reason.value,
            "message": message[:2048],
            "final": True,
            "time": now.replace(microsecond=0).isoformat(),
        }
    )


def _with_verdict(revision: ExpertRevision, verdict: Verdict | None) -> ExpertRevision:
    if verdict is None:
        return revision
    status = revision.status.model_copy(update={"verdict": verdict})
    return revision.model_copy(update={"status": status})
