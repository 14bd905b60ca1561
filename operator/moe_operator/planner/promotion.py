"""The promotion gate: decides whether a candidate replaces the current revision.

The gate measures nothing itself. It compares the numbers in the evidence, which the evaluate Job wrote, with limits.
Its clauses, in order:

    window      On the newest holdout, the upper bound of mean ln(b_candidate / b_current) is
                    at most -delta   for new data and after drift: training on it must have helped;
                    at most +delta   for a changed spec and a newer base: the change must not have hurt;
                    at most -delta   for a first revision without a base: it must beat a byte-unigram model.
    anchor      On the first holdout, the same bound is at most +delta. This refuses junk: a model trained on junk
                looks good on a window that is made of junk.
    forgetting  If spec.promotion.maxForgetting is set, the upper end of forgetting is at most that.
    evaluators  For each evaluator that the spec names, the lower end of accuracy_candidate - accuracy_current is at
                least -spec.promotion.accuracyMargin. Otherwise the clause refuses if the upper end is below 0 (the
                candidate is worse), and waits for more items if it is not (the items cannot tell).
    targets     If spec.promotion.enforcement is Serve, a first revision meets every target.
    loads       A server, which gets no traffic yet, loads the weights and answers with their digest. This clause is
                in making.py, because it needs a server.

A clause passes, refuses or waits (for data). A refused candidate is not trained again, but its ruling changes if
targets or promotion in the spec change. delta is max(0.5 %, twice the noise floor). The k-th use of a holdout tests at
alpha = 0.05 * 6 / (pi^2 k^2), so that all uses together err at most 5 % of the time. After MAX_USES uses of a window, the
gate waits for a newer one. The anchor never changes once it is large enough, and it is never used up: it continues to be
tested at the strictest of these levels, because it can only refuse. Before there is a newer window, the anchor is also
the window, and is used up as one.

All comparisons leave out documents that either side was trained on. Source: docs/concepts.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from moe_formats.job_config import MAX_USES, MIN_CLUSTERS
from moe_formats.job_report import Accuracy, Decision, Window
from moe_formats.resources.expert import Promotion
from moe_formats.resources.expert_revision import Cause, Evidence, ExpertRevision
from moe_formats.resources.expert_status import TargetStatus
from moe_formats.resources.reasons import Reason
from moe_operator.planner.targets import NOT_MEASURED


@dataclass(frozen=True)
class Uses:
    """How many decisions have used each holdout of a candidate, counting the decision on the candidate itself."""

    anchor: int
    window: int


@dataclass(frozen=True)
class Candidate:
    """A measured revision that the gate decides about."""

    name: str
    cause: Cause
    #: True while the Expert has no current revision.
    first: bool
    evidence: Evidence
    promotion: Promotion
    targets: Sequence[TargetStatus]
    #: Names of the evaluators by which it must not be inferior to what it is compared with.
    evaluators: Sequence[str] = ()


@dataclass(frozen=True)
class Ruling:
    """The gate's decision, and the clause that made it."""

    outcome: Literal["Promoted", "Refused", "Waiting", "Failed"]
    clause: str
    reason: Reason
    message: str

    @property
    def final(self) -> bool:
        """Whether the decision stands for good. A candidate that waits may still be promoted or refused."""
        return self.outcome != "Waiting"


#: Causes whose revisions have to be better than the current one: what they were trained on must have helped.
_MUST_IMPROVE = (Cause.NEW_DATA, Cause.DRIFT)


def judge(candidate: Candidate) -> Ruling:
    """Return the ruling of the first clause that does not pass, or a promotion."""
    for clause in CLAUSES:
        ruling = clause(candidate)
        if ruling is not None:
            return ruling
    lines = "; ".join(_numbers(decision) for decision in candidate.evidence.decisions)
    return Ruling("Promoted", "all", Reason.PROMOTED, f"{candidate.name} passed every clause: {lines}")


def too_small(anchor: Window, newest: Window | None) -> Ruling | None:
    """Return a ruling that waits for data if a holdout has too few clusters to decide anything; known before training."""
    for label, window in (("the anchor", anchor), ("the newest window", newest)):
        if window is not None and window.clusters < MIN_CLUSTERS:
            return _waiting(
                "holdout",
                Reason.HOLDOUT_TOO_SMALL,
                f"{label} has {window.clusters} held-out clusters of near-duplicate documents, and at least "
                f"{MIN_CLUSTERS} are needed to decide anything: add data; if spec.data.refresh is not set, also change "
                "spec.runID to have it read",
            )
    return None


def used_up(uses: Uses) -> Ruling | None:
    """Return a ruling that waits for data if the newest window has been used often enough; known before training."""
    if uses.window <= MAX_USES:
        return None
    return _waiting(
        "window",
        Reason.WINDOW_USED_UP,
        f"the newest holdout has been used for {uses.window - 1} decisions, of at most {MAX_USES}: add data, so that a "
        "newer one is held out",
    )


def uses_of(revision: ExpertRevision, revisions: Sequence[ExpertRevision]) -> Uses:
    """Return how many decisions have used a revision's holdouts, counting the one on the revision itself."""
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
    must_improve = candidate.cause in _MUST_IMPROVE or decision.against == "unigram"
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
        return _waiting("evaluators", Reason.TARGETS_UNKNOWN, f"evaluator {name} has no result: {why}")
    difference, margin = found.difference, candidate.promotion.accuracy_margin
    if difference is None or difference.lower >= -margin:
        return (
            None  # Without a difference, there is nothing to be inferior to: a first revision without a base.
        )
    numbers = (
        f"by evaluator {name}, its accuracy minus that of the {found.against} is {difference.value:+.3f} "
        f"[{difference.lower:+.3f}, {difference.upper:+.3f}] on {found.items} items; the lower end must be at "
        f"least -spec.promotion.accuracyMargin = {-margin:g}"
    )
    if difference.upper < 0:
        return _refused(candidate, "evaluators", numbers)
    return _waiting(
        "evaluators",
        Reason.TARGETS_UNKNOWN,
        f"{numbers}. It may be as good, but there are too few items to tell: add items and change spec.runID, or "
        "raise spec.promotion.accuracyMargin",
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


#: The clauses, in the order in which they are asked.
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
            f"only {clusters} clusters of the {decision.role} are in neither side's training data, and at least "
            f"{MIN_CLUSTERS} are needed to decide anything: add data",
        )
    if decision.upper <= limit:
        return None
    rule = f"at most {limit:+.4f} ({'-' if limit < 0 else '+'}delta)"
    which = "the newest window is the anchor; " if clause == "window" and decision.role == "anchor" else ""
    return _refused(candidate, clause, f"{which}{_numbers(decision)}; the bound must be {rule}")


def _decision(evidence: Evidence, role: str) -> Decision | None:
    return next((decision for decision in evidence.decisions if decision.role == role), None)


def _not_measured(candidate: Candidate, clause: str) -> Ruling:
    why = candidate.evidence.scores.absent.get(clause, "too few clusters are in neither side's training data")
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
    return f"target {target.name} {measured}; the spec asks for {target.wanted:g}"


def _refused(candidate: Candidate, clause: str, why: str) -> Ruling:
    message = (
        f"clause {clause} refused {candidate.name} for good: {why}. These inputs are not trained again; "
        "the last good revision goes on serving. Change the data or the spec to make another revision"
    )
    return Ruling("Refused", clause, Reason.PROMOTION_REFUSED, message)


def _waiting(clause: str, reason: Reason, why: str) -> Ruling:
    return Ruling("Waiting", clause, reason, f"clause {clause} waits, nothing is refused: {why}")
