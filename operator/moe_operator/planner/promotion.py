"""The promotion gate decides whether a candidate takes the place of the current revision.

It reads numbers from the evidence that the evaluate Job wrote and decides nothing by itself. Its clauses, in order:

    window      on the newest holdout, the upper bound of mean ln(b_candidate / b_current) is
                    at most -delta   for new data: training on it must have helped
                    at most +delta   for a changed spec: it must not have hurt
                    at most -delta   for a first revision without a base: it must beat a byte-unigram model
    anchor      on the first holdout, the same bound is at most +delta; this refuses junk, since a window
                made of junk likes a model trained on junk
    forgetting  where spec.promotion.maxForgetting is set: the upper end of forgetting is at most that
    evaluators  by each evaluator that the spec names, the lower end of accuracy_candidate - accuracy_current is
                    at least -spec.promotion.accuracyMargin; where that is not so, it refuses if the upper end is
                    below 0 (it is worse), and waits for more items if it is not (nobody can tell)
    targets     where spec.promotion.enforcement is Serve: a first revision meets every target
    loads       a server loads it and answers with its digest, without traffic yet (making.py sees to that)

A clause passes, refuses for good (these inputs are not tried again), or waits (for data). delta is
max(0.5 %, twice the noise floor). The k-th use of a holdout tests at alpha = 0.05 * 6 / (pi^2 k^2), so that
all uses together err at most 5 % of the time; after MAX_USES a window waits for a newer one. The anchor is
the same for ever: it goes on being asked at the strictest of these levels, because it only ever refuses.
Before there is a newer window, the anchor is also the window, and is used up like one.

All of a revision's comparisons drop documents that either side was trained on. Source: docs/concepts.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from moe_formats.job_report import Accuracy, Decision, Window
from moe_formats.resources.expert import Promotion
from moe_formats.resources.expert_revision import Cause, Evidence, ExpertRevision
from moe_formats.resources.expert_status import TargetStatus
from moe_formats.resources.reasons import Reason
from moe_operator.planner.targets import NOT_MEASURED

#: Held-out clusters under which no decision is made.
MIN_CLUSTERS = 20

#: Decisions that one window is good for.
MAX_USES = 5


@dataclass(frozen=True)
class Uses:
    """How many decisions have used the holdouts of a candidate, its own included."""

    anchor: int
    window: int


@dataclass(frozen=True)
class Candidate:
    """A measured revision before the gate."""

    name: str
    cause: Cause
    #: True while the Expert has no current revision.
    first: bool
    evidence: Evidence
    promotion: Promotion
    targets: Sequence[TargetStatus]
    #: Names of the evaluators by which it must not be inferior.
    evaluators: Sequence[str] = ()


@dataclass(frozen=True)
class Ruling:
    """What the gate says; ``clause`` is the one that decided, ``final`` that these inputs are not tried again."""

    outcome: Literal["Promoted", "Refused", "Waiting", "Failed"]
    clause: str
    reason: Reason
    message: str

    @property
    def final(self) -> bool:
        """Return whether there is nothing to wait for."""
        return self.outcome != "Waiting"


def judge(candidate: Candidate) -> Ruling:
    """Return the ruling of the first clause that does not pass, or a promotion."""
    for clause in CLAUSES:
        ruling = clause(candidate)
        if ruling is not None:
            return ruling
    lines = "; ".join(_numbers(decision) for decision in candidate.evidence.decisions)
    return Ruling("Promoted", "all", Reason.PROMOTED, f"{candidate.name} passed every clause: {lines}")


def too_small(anchor: Window, newest: Window | None) -> Ruling | None:
    """Wait for data where a holdout has too few clusters to decide anything; known before training."""
    for label, window in (("the anchor", anchor), ("the newest window", newest)):
        if window is not None and window.clusters < MIN_CLUSTERS:
            return _waiting(
                "holdout",
                Reason.HOLDOUT_TOO_SMALL,
                f"{label} has {window.clusters} held-out clusters of near-duplicate documents, and "
                f"{MIN_CLUSTERS} are needed to decide anything: add data; without data.refresh, change "
                "spec.runID to have it read",
            )
    return None


def used_up(uses: Uses) -> Ruling | None:
    """Wait for data where the newest window has served its decisions; known before training."""
    if uses.window <= MAX_USES:
        return None
    return _waiting(
        "window",
        Reason.WINDOW_USED_UP,
        f"the newest holdout has been used for {uses.window - 1} decisions, and {MAX_USES} are what it is "
        "good for: the next one waits for new data",
    )


def uses_of(revision: ExpertRevision, revisions: Sequence[ExpertRevision]) -> Uses:
    """Count the decisions made on a revision's holdouts, its own included."""
    anchor = revision.spec.anchor.digest
    window = revision.spec.newest.digest if revision.spec.newest else anchor

    def count(digest: str) -> int:
        return 1 + sum(
            any(decision.holdout == digest for decision in other.status.evidence.decisions)
            for other in revisions
            if other.status.evidence is not None and other.metadata.name != revision.metadata.name
        )

    return Uses(anchor=min(count(anchor), MAX_USES), window=count(window))


def _window(candidate: Candidate) -> Ruling | None:
    decision = _decision(candidate.evidence, "window") or _decision(candidate.evidence, "anchor")
    if decision is None:
        return _not_measured(candidate, "window")
    must_improve = candidate.cause is Cause.NEW_DATA or decision.against == "unigram"
    limit = -candidate.evidence.delta if must_improve else candidate.evidence.delta
    return _bounded(candidate, "window", decision, limit)


def _anchor(candidate: Candidate) -> Ruling | None:
    decision = _decision(candidate.evidence, "anchor")
    if decision is None:
        return _not_measured(candidate, "anchor")
    return _bounded(candidate, "anchor", decision, candidate.evidence.delta)


def _forgetting(candidate: Candidate) -> Ruling | None:
    limit, measured = candidate.promotion.max_forgetting, candidate.evidence.scores.forgetting
    if limit is None or (measured is not None and measured.upper <= limit):
        return None
    if measured is None:
        why = candidate.evidence.scores.absent.get("forgetting", "it was not measured")
        return _waiting(
            "forgetting", Reason.TARGETS_UNKNOWN, f"spec.promotion.maxForgetting is {limit:g}, but {why}"
        )
    return _refused(
        candidate,
        "forgetting",
        f"it forgets {measured.value:+.3f} [{measured.lower:+.3f}, {measured.upper:+.3f}] bits per byte on "
        f"the other domains; the upper end must be at most spec.promotion.maxForgetting = {limit:g}",
    )


def _evaluators(candidate: Candidate) -> Ruling | None:
    found = {item.evaluator: item for item in candidate.evidence.scores.accuracies}
    for name in candidate.evaluators:
        ruling = _not_inferior(candidate, name, found.get(name))
        if ruling is not None:
            return ruling
    return None


def _not_inferior(candidate: Candidate, name: str, found: Accuracy | None) -> Ruling | None:
    if found is None:
        why = candidate.evidence.scores.absent.get(f"accuracy.{name}", NOT_MEASURED)
        return _waiting("evaluators", Reason.TARGETS_UNKNOWN, f"evaluator {name} found nothing: {why}")
    difference, margin = found.difference, candidate.promotion.accuracy_margin
    if difference is None or difference.lower >= -margin:
        return None  # a first revision without a base has nothing to be inferior to
    numbers = (
        f"by evaluator {name} its accuracy less that of the {found.against} is {difference.value:+.3f} "
        f"[{difference.lower:+.3f}, {difference.upper:+.3f}] on {found.items} items; the lower end must be at "
        f"least -spec.promotion.accuracyMargin = {-margin:g}"
    )
    if difference.upper < 0:
        return _refused(candidate, "evaluators", numbers)
    return _waiting(
        "evaluators",
        Reason.TARGETS_UNKNOWN,
        f"{numbers}. It may be as good: add items and change spec.runID, or allow a wider margin",
    )


def _targets(candidate: Candidate) -> Ruling | None:
    if candidate.promotion.enforcement != "Serve" or not candidate.first:
        return None
    unmet = [target for target in candidate.targets if target.met is not True]
    if not unmet:
        return None
    words = "; ".join(_target_words(target) for target in unmet)
    if any(target.met is False for target in unmet):
        return _refused(candidate, "targets", f"spec.promotion.enforcement is Serve, and {words}")
    return _waiting("targets", Reason.TARGETS_UNKNOWN, f"spec.promotion.enforcement is Serve, and {words}")


#: The order in which they are asked.
CLAUSES: tuple[Callable[[Candidate], Ruling | None], ...] = (
    _window,
    _anchor,
    _forgetting,
    _evaluators,
    _targets,
)


def _bounded(candidate: Candidate, clause: str, decision: Decision, limit: float) -> Ruling | None:
    clusters = decision.interval.clusters
    if clusters is not None and clusters < MIN_CLUSTERS:
        return _waiting(
            clause,
            Reason.HOLDOUT_TOO_SMALL,
            f"{clusters} clusters of the {decision.role} are clean for both sides, and {MIN_CLUSTERS} are "
            "needed to decide anything: add data",
        )
    if decision.upper <= limit:
        return None
    wanted = f"at most {limit:+.4f} ({'-' if limit < 0 else '+'}delta)"
    return _refused(candidate, clause, f"{_numbers(decision)}; the bound must be {wanted}")


def _decision(evidence: Evidence, role: str) -> Decision | None:
    return next((decision for decision in evidence.decisions if decision.role == role), None)


def _not_measured(candidate: Candidate, clause: str) -> Ruling:
    why = candidate.evidence.scores.absent.get(
        clause, "fewer clusters than are needed are clean for both sides"
    )
    return _waiting(clause, Reason.HOLDOUT_TOO_SMALL, f"the {clause} could not be compared: {why}. Add data")


def _numbers(decision: Decision) -> str:
    against = {"current": "the current revision", "base": "the base", "unigram": "a byte-unigram model"}
    interval = decision.interval
    clusters = f" on {interval.clusters} clusters" if interval.clusters is not None else ""
    return (
        f"{decision.role} against {against[decision.against]}: mean ln(b_candidate / b_{decision.against}) = "
        f"{interval.value:+.4f} [{interval.lower:+.4f}, {interval.upper:+.4f}]{clusters}, upper bound "
        f"{decision.upper:+.4f} at alpha {decision.alpha:.3g} (use {decision.uses})"
    )


def _target_words(target: TargetStatus) -> str:
    measured = "could not be judged" if target.measured is None else f"is {target.measured:.3f}"
    return f"target {target.name} {measured} where {target.wanted:g} is wanted"


def _refused(candidate: Candidate, clause: str, why: str) -> Ruling:
    message = (
        f"clause {clause} refused {candidate.name} for good: {why}. These inputs are not tried again; "
        "the last good revision goes on serving. Change the data or the spec to make another revision"
    )
    return Ruling("Refused", clause, Reason.PROMOTION_REFUSED, message)


def _waiting(clause: str, reason: Reason, why: str) -> Ruling:
    return Ruling("Waiting", clause, reason, f"clause {clause} waits, nothing is refused: {why}")
