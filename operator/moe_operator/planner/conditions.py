"""Words conditions: which stage a revision has reached, for its own status and for that of its Expert, and what kstatus reads.

The functions return what a condition says (``Says``): whether it holds, the reason as one word, and a message.
"""

from collections.abc import Sequence
from typing import NamedTuple

from moe_formats.resources.conditions import Condition, ConditionType, condition, find_condition
from moe_formats.resources.expert_revision import ExpertRevisionStatus
from moe_formats.resources.reasons import Reason
from moe_operator.planner.attempts import known_reason
from moe_operator.state import Event


class Says(NamedTuple):
    """What a condition says: whether it holds (None: unknown), the reason as one word, and a message."""

    status: bool | None
    reason: Reason
    message: str


class Why(NamedTuple):
    """A reason as one word, and a message that explains it."""

    reason: Reason
    message: str


def say(type_: ConditionType, says: Says, *, generation: int) -> Condition:
    """Return the condition of a type that says ``says``, observed at a generation."""
    return condition(type_, says.status, says.reason, says.message, generation=generation)


def kstatus(
    *, ready: Says, work: Why | None, stop: Why | None, rest: Why | None = None, generation: int
) -> tuple[Condition, Condition, Condition]:
    """Return the conditions Ready, Reconciling and Stalled, as kstatus reads them.

    ``work`` is what is under way; ``stop`` is why nothing will change until somebody changes something; ``rest`` is why
    nothing is under way if that is neither a stop nor the end of all work.
    """
    settled = stop or Why(Reason.SETTLED, "")
    idle = (
        "nothing is left to do" if stop is None else "nothing is under way; condition Stalled says what to do"
    )
    reconciling = (
        Says(True, Reason.PROGRESSING, work.message)
        if work is not None
        else Says(False, *(rest or Why(settled.reason, idle)))
    )
    return (
        say(ConditionType.READY, ready, generation=generation),
        say(ConditionType.RECONCILING, reconciling, generation=generation),
        say(ConditionType.STALLED, Says(stop is not None, *settled), generation=generation),
    )


def stall_events(before: Sequence[Condition], after: Sequence[Condition]) -> list[Event]:
    """Return a warning if an object has stalled, or if it is stalled for another reason than before."""
    new = find_condition(after, ConditionType.STALLED)
    old = find_condition(before, ConditionType.STALLED)
    if new is None or new.status != "True":
        return []
    if old is not None and (old.status, old.reason, old.message) == ("True", new.reason, new.message):
        return []
    return [Event(known_reason(new.reason), new.message[:1000], "Warning")]


def trained(name: str, status: ExpertRevisionStatus, under_way: Why | None = None) -> Says:
    """Return what the condition Trained says of a revision. ``under_way`` describes the current attempt."""
    if status.artefact is not None:
        artefact = status.artefact
        message = f"{name}: {artefact.steps} steps, {artefact.tokens} tokens, final loss {artefact.final_loss:.4f} nats per token"
        return Says(True, Reason.TRAINED, message)
    attempts = Why(Reason.TRAINING, f"{name}: {status.attempts} attempts made")
    return _not_yet(status, under_way or attempts)


def evaluated(name: str, status: ExpertRevisionStatus, under_way: Why | None = None) -> Says:
    """Return what the condition Evaluated says of a revision. ``under_way`` describes the current attempt."""
    if status.evidence is not None:
        against = status.evidence.current or "its base"
        message = f"{name} was measured against {against}; report {status.evidence.report[:19]}"
        return Says(True, Reason.EVALUATED, message)
    if status.artefact is None:
        return _not_yet(status, Why(Reason.PENDING, f"{name} has not been trained yet"))
    return _not_yet(status, under_way or Why(Reason.EVALUATING, f"{name} is being measured"))


def promoted(name: str, status: ExpertRevisionStatus) -> Says:
    """Return what the condition Promoted says of a revision."""
    if status.verdict is None:
        return Says(False, Reason.PENDING, f"the gate has not decided about {name} yet")
    verdict = status.verdict
    return Says(verdict.outcome == "Promoted", known_reason(verdict.reason), verdict.message)


def _not_yet(status: ExpertRevisionStatus, otherwise: Why) -> Says:
    """Return why training or evaluation is not finished: the verdict's reason if there is one, else ``otherwise``."""
    if status.verdict is not None:
        return Says(False, known_reason(status.verdict.reason), status.verdict.message)
    return Says(False, *otherwise)
