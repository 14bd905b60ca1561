"""Decides which events an Expert gets when its status changes. They are sent after the status is written."""

from typing import Literal

from moe_formats.resources.expert_status import ExpertStatus
from moe_formats.resources.reasons import Reason
from moe_operator.planner.analysis import ASKING, newest_proposal
from moe_operator.planner.attempts import known_reason
from moe_operator.planner.conditions import stall_events
from moe_operator.planner.decisions import Decisions
from moe_operator.planner.lineage import by_name
from moe_operator.planner.validation import twins
from moe_operator.state import Event


def expert_events(decided: Decisions, status: ExpertStatus) -> tuple[Event, ...]:
    """Return the events for the change from the Expert's present status to ``status``."""
    before = decided.state.expert.status
    events = [
        *_data_events(decided, status),
        *_revision_events(decided, status),
        *_making_events(decided),
        *_drift_events(decided),
        *stall_events(before.conditions, status.conditions),
    ]
    if status.serving and status.serving.revision != (before.serving.revision if before.serving else None):
        events.append(Event(Reason.ROLLED_OUT, f"all traffic goes to {status.serving.revision}"))
    events += _proposal_events(decided, status)
    same_domain = twins(decided.state)
    if before.observed_generation == 0 and same_domain:
        domain = decided.state.expert.spec.domain
        message = (
            f"domain {domain} is also that of {', '.join(same_domain)}: requests may go to any of them. "
            "This is allowed; if it was not intended, create this Expert again with another domain"
        )
        events.append(Event(Reason.TWIN_DOMAIN, message, "Warning"))
    return tuple(events)


def _revision_events(decided: Decisions, status: ExpertStatus) -> list[Event]:
    name = status.latest_revision
    # If the newest revision was deleted, an older one is the newest again, but nothing was created.
    if name is None or status.revisions == decided.state.expert.status.revisions:
        return []
    spec = by_name(decided.state.revisions)[name].spec
    why = f"{spec.cause} ({spec.cause_message})" if spec.cause_message else spec.cause
    return [Event(Reason.REVISION_CREATED, f"{name} was created; cause: {why}"[:1000])]


def _proposal_events(decided: Decisions, status: ExpertStatus) -> list[Event]:
    before, newest = decided.state.expert.status.proposal, newest_proposal(decided.state.proposals)
    if newest is None or status.proposal == before or newest.status.reason not in ASKING:
        return []
    why = newest.status.evidence.summary if newest.status.evidence is not None else ""
    return [Event(Reason.PROPOSED, f"{newest.spec.act} is proposed as {newest.metadata.name}: {why}"[:1000])]


def _data_events(decided: Decisions, status: ExpertStatus) -> list[Event]:
    before, after = decided.state.expert.status.snapshot, status.snapshot
    if after is None or (before is not None and before.request == after.request):
        return []
    if before is not None and before.digest == after.digest:
        message = f"{after.job} found the same data as before ({after.digest[:19]}), so nothing is trained"
        return [Event(Reason.DATA_UNCHANGED, message)]
    return [Event(Reason.SNAPSHOT_TAKEN, decided.data.condition.message)]


def _drift_events(decided: Decisions) -> list[Event]:
    """Return an event if a measurement names another cause than the one before, or none any more."""
    before, measuring = decided.state.expert.status.drift, decided.measuring
    if not measuring.fresh or measuring.status is None or measuring.says is None:
        return []
    if measuring.status.cause == (before.cause if before is not None else None):
        return []
    kind: Literal["Normal", "Warning"] = "Warning" if measuring.status.drifted else "Normal"
    return [Event(measuring.says.reason, measuring.says.message[:1000], kind)]


def _making_events(decided: Decisions) -> list[Event]:
    making = decided.making
    if making is None:
        return []
    events, name = [], making.revision.metadata.name
    after = making.status
    live = by_name(decided.state.revisions)[name].status
    if after.attempts > live.attempts:
        events.append(Event(Reason.TRAINING_STARTED, f"attempt {after.attempts} at training {name}"))
    if after.artefact is not None and live.artefact is None:
        events.append(Event(Reason.TRAINED, f"{name} was trained for {after.artefact.steps} steps"))
    verdict = after.verdict
    if verdict is not None and verdict != live.verdict:
        kind: Literal["Normal", "Warning"] = "Normal" if verdict.outcome == "Promoted" else "Warning"
        events.append(Event(known_reason(verdict.reason), f"{name}: {verdict.message}"[:1000], kind))
    return events
