"""Decides whether a revision has drifted, and what moved: a table over numbers that a drift Job measured.

    row             fires if
    DomainChanged   the newest text resembles another domain more than the Expert's own
    QualityDrop     D is up: the revision gains less over its base on the newest text than on the anchor
    InputShift      D is flat and the base's bits per byte are up: the text got harder, and nothing is trained
    TaskDrop        nothing above, and an evaluator's accuracy fell
    RoutingShift    nothing above, and the Expert's share of the pool's requests moved

The first row that fires names the cause. A row whose input is absent cannot fire. "Up" means that the one-sided lower
bound at an error rate of 0.01 exceeds 1 %. Whether the Expert has drifted depends on D alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

from moe_formats.resources.drift import DriftCause, DriftStatus
from moe_formats.resources.reasons import Reason
from moe_operator.planner.conditions import Says

#: A difference of ln(bits per byte) is up if its one-sided lower bound exceeds this.
DRIFTED = 0.01

#: A revision that has drifted stays so until its drift falls below this.
CLEARED = 0.005


@dataclass(frozen=True)
class Findings:
    """What moved, as far as it is known: None where it could not be measured."""

    #: Whether D is up.
    drifted: bool | None = None
    #: Whether the base's bits per byte are up.
    harder: bool | None = None
    domain_changed: bool | None = None
    task_fell: bool | None = None
    share_moved: bool | None = None


#: The rows, in the order in which they are asked.
TABLE: tuple[tuple[DriftCause, Callable[[Findings], bool]], ...] = (
    ("DomainChanged", lambda found: found.domain_changed is True),
    ("QualityDrop", lambda found: found.drifted is True),
    ("InputShift", lambda found: found.drifted is False and found.harder is True),
    ("TaskDrop", lambda found: found.drifted is False and found.task_fell is True),
    ("RoutingShift", lambda found: found.drifted is False and found.share_moved is True),
)

_WORDS = {
    Reason.DOMAIN_CHANGED: "the newest text resembles domain {domain} most",
    Reason.QUALITY_DROP: "it no longer fits the newest text",
    Reason.INPUT_SHIFT: "the newest text is harder, and it fits it as well as before",
    Reason.TASK_DROP: "an evaluator's accuracy fell, and the text fits as before",
    Reason.ROUTING_SHIFT: "its share of the requests moved, and the text fits as before",
    Reason.NOT_DRIFTED: "it fits the newest text as well as the first",
}


def cause_of(found: Findings) -> DriftCause | None:
    """Return the cause of the first row that fires, or None."""
    return next((cause for cause, fires in TABLE if fires(found)), None)


def is_up(lower_bound: float | None) -> bool | None:
    """Return whether a difference is up, by its one-sided lower bound; None if it could not be computed."""
    return lower_bound > DRIFTED if lower_bound is not None else None


def has_drifted(value: float | None, lower_bound: float | None, before: DriftStatus | None) -> bool | None:
    """Return whether a revision has drifted, by D and its lower bound; None if they could not be computed.

    ``before`` is what was measured of the same revision before: once drifted, it stays so until D falls below CLEARED.
    """
    if value is None or lower_bound is None:
        return None
    stays = before is not None and before.drifted and value >= CLEARED
    return stays or lower_bound > DRIFTED


def drift_says(drift: DriftStatus) -> Says:
    """Return what the condition Drifted says of a measurement."""
    interval = drift.interval
    if interval is None:
        why = drift.absent.get("interval", "it could not be computed")
        return Says(None, _reason_of(why), f"the drift of {drift.revision} could not be measured: {why}")
    reason = Reason(drift.cause) if drift.cause is not None else Reason.NOT_DRIFTED
    words = _WORDS[reason].format(domain=drift.nearest_domain)
    numbers = (
        f"drift {interval.value:+.4f} [{interval.lower:+.4f}, {interval.upper:+.4f}], lower bound "
        f"{drift.lower_bound or 0.0:+.4f} at alpha 0.01, on {drift.clusters} clusters of the last {len(drift.windows)} windows"
    )
    if drift.difficulty is not None:
        harder = drift.difficulty
        numbers += f"; the base's bits per byte changed by {harder.value:+.4f} [{harder.lower:+.4f}, {harder.upper:+.4f}]"
    return Says(drift.drifted, reason, f"{drift.revision}: {words}: {numbers}")


def _reason_of(why: str) -> Reason:
    """Return the reason that an explanation begins with, as ``HoldoutTooSmall: ...`` does; NotMeasured for any other."""
    word = why.partition(":")[0]
    return Reason(word) if word in set(Reason) else Reason.NOT_MEASURED
