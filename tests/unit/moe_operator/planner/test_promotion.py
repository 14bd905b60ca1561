"""The promotion gate, clause by clause."""

import pytest

from moe_formats.job_report import Accuracy, Decision, Interval, Window
from moe_formats.resources.expert import Promotion
from moe_formats.resources.expert_revision import Cause, Evidence
from moe_formats.resources.expert_status import Scores, TargetStatus
from moe_operator.planner.promotion import Candidate, Uses, judge, too_small, used_up

HOLDOUT = "sha256:" + "0" * 64


def decision(role: str, upper: float, *, against: str = "current", clusters: int = 30) -> Decision:
    return Decision.model_validate(
        {
            "role": role,
            "holdout": HOLDOUT,
            "uses": 1,
            "alpha": 0.0304,
            "against": against,
            "interval": {"value": upper - 0.02, "lower": upper - 0.04, "upper": upper, "clusters": clusters},
            "upper": upper,
        }
    )


def candidate(
    *decisions: Decision,
    cause: Cause = Cause.SPEC_CHANGED,
    forgetting: float | None = None,
    promotion: Promotion | None = None,
    targets: tuple[TargetStatus, ...] = (),
    first: bool = False,
    accuracies: tuple[Accuracy, ...] = (),
    evaluators: tuple[str, ...] = (),
    absent: dict[str, str] | None = None,
) -> Candidate:
    forgets = (
        Interval(value=forgetting, lower=forgetting - 0.1, upper=forgetting + 0.1)
        if forgetting is not None
        else None
    )
    evidence = Evidence(
        report=HOLDOUT,
        delta=0.005,
        noise_floor=0.0,
        decisions=list(decisions),
        scores=Scores(forgetting=forgets, accuracies=list(accuracies), absent=absent or {}),
    )
    return Candidate("code-2", cause, first, evidence, promotion or Promotion(), targets, evaluators)


def accuracy(value: float, width: float, *, against: str | None = "current") -> Accuracy:
    difference = {"value": value, "lower": value - width, "upper": value + width} if against else None
    return Accuracy.model_validate(
        {
            "evaluator": "sums",
            "items": 300,
            "accuracy": {"value": 0.8, "lower": 0.75, "upper": 0.85},
            "difference": difference,
            "against": against,
        }
    )


@pytest.mark.parametrize(
    ("name", "cause", "window", "anchor", "outcome", "clause"),
    [
        ("a changed spec may be as good", Cause.SPEC_CHANGED, 0.004, 0.004, "Promoted", "all"),
        ("a changed spec must not hurt", Cause.SPEC_CHANGED, 0.006, 0.0, "Refused", "window"),
        ("new data must have helped", Cause.NEW_DATA, 0.004, 0.0, "Refused", "window"),
        ("new data that just fails to help", Cause.NEW_DATA, -0.0049, 0.0, "Refused", "window"),
        ("new data that helped by delta", Cause.NEW_DATA, -0.005, 0.005, "Promoted", "all"),
        ("junk wins its window and loses on the anchor", Cause.NEW_DATA, -0.5, 0.08, "Refused", "anchor"),
        ("the window is asked first", Cause.NEW_DATA, 0.5, 0.5, "Refused", "window"),
    ],
)
def test_the_bounds_decide(
    name: str, cause: Cause, window: float, anchor: float, outcome: str, clause: str
) -> None:
    ruling = judge(candidate(decision("anchor", anchor), decision("window", window), cause=cause))
    assert (ruling.outcome, ruling.clause) == (outcome, clause), name
    assert ruling.final


def test_before_there_is_a_newer_window_the_anchor_is_the_window() -> None:
    assert judge(candidate(decision("anchor", -0.001), cause=Cause.NEW_DATA)).clause == "window"
    assert judge(candidate(decision("anchor", -0.01), cause=Cause.NEW_DATA)).outcome == "Promoted"


def test_a_first_revision_without_a_base_must_beat_the_unigram_model() -> None:
    assert judge(candidate(decision("anchor", 0.0, against="unigram"), first=True)).outcome == "Refused"
    assert judge(candidate(decision("anchor", -0.3, against="unigram"), first=True)).outcome == "Promoted"


def test_a_first_revision_must_not_be_worse_than_its_base() -> None:
    assert judge(candidate(decision("anchor", 0.004, against="base"), first=True)).outcome == "Promoted"
    assert judge(candidate(decision("anchor", 0.006, against="base"), first=True)).outcome == "Refused"


def test_too_few_clean_clusters_wait_and_refuse_nothing() -> None:
    ruling = judge(candidate(decision("anchor", 9.0, clusters=19)))
    assert (ruling.outcome, ruling.final, ruling.reason) == ("Waiting", False, "HoldoutTooSmall")


def test_a_comparison_that_is_missing_waits() -> None:
    assert judge(candidate()).outcome == "Waiting"


def test_a_refusal_names_the_clause_the_numbers_and_the_interval_and_that_it_is_final() -> None:
    message = judge(
        candidate(decision("anchor", 0.08), decision("window", -0.1), cause=Cause.NEW_DATA)
    ).message
    for part in (
        "clause anchor",
        "for good",
        "+0.0600 [+0.0400, +0.0800]",
        "30 clusters",
        "alpha 0.0304",
        "+0.0050",
    ):
        assert part in message
    assert "last good revision goes on serving" in message


def test_forgetting_is_limited_where_asked() -> None:
    limited = Promotion(max_forgetting=0.5)
    good = decision("anchor", -0.1)
    assert judge(candidate(good, forgetting=0.3, promotion=limited)).outcome == "Promoted"
    assert judge(candidate(good, forgetting=0.45, promotion=limited)).clause == "forgetting"
    assert judge(candidate(good, forgetting=5.0)).outcome == "Promoted"
    assert judge(candidate(good, promotion=limited)).outcome == "Waiting"


def test_targets_keep_only_a_first_revision_and_only_where_enforced() -> None:
    missed = (TargetStatus(name="gain", wanted=0.2, measured=0.1, met=False),)
    unknown = (TargetStatus(name="gain", wanted=0.2),)
    serve, good = Promotion(enforcement="Serve"), decision("anchor", -0.1)
    assert judge(candidate(good, promotion=serve, targets=missed, first=True)).clause == "targets"
    assert judge(candidate(good, promotion=serve, targets=unknown, first=True)).outcome == "Waiting"
    assert judge(candidate(good, promotion=serve, targets=missed)).outcome == "Promoted"
    assert judge(candidate(good, targets=missed, first=True)).outcome == "Promoted"


def test_a_small_holdout_and_a_used_up_window_are_known_before_training() -> None:
    small = Window(path="p", digest=HOLDOUT, clusters=19, segments=9)
    large = Window(path="p", digest=HOLDOUT, clusters=20, segments=9)
    assert too_small(large, None) is None
    assert (too_small(small, None) or judge(candidate())).reason == "HoldoutTooSmall"
    assert too_small(large, small) is not None
    assert used_up(Uses(anchor=5, window=5)) is None
    assert used_up(Uses(anchor=5, window=6)) is not None


@pytest.mark.parametrize(
    ("name", "value", "width", "outcome"),
    [
        ("it answers as well", 0.0, 0.05, "Promoted"),
        ("it answers better", 0.1, 0.02, "Promoted"),
        ("it is worse, but by less than the margin", -0.02, 0.01, "Promoted"),
        ("it is worse by more", -0.1, 0.05, "Refused"),
        ("nobody can tell", -0.01, 0.06, "Waiting"),
    ],
)
def test_a_named_evaluator_must_not_find_it_inferior(
    name: str, value: float, width: float, outcome: str
) -> None:
    judged = candidate(decision("anchor", 0.0), accuracies=(accuracy(value, width),), evaluators=("sums",))
    assert judge(judged).outcome == outcome, name


def test_an_inferior_accuracy_is_refused_with_its_numbers_and_the_margin() -> None:
    judged = candidate(decision("anchor", 0.0), accuracies=(accuracy(-0.1, 0.05),), evaluators=("sums",))
    ruling = judge(judged)
    assert (ruling.clause, ruling.final) == ("evaluators", True)
    for part in ("evaluator sums", "-0.100 [-0.150, -0.050]", "300 items", "accuracyMargin = -0.05"):
        assert part in ruling.message
    wide = Promotion(accuracy_margin=0.2)
    allowed = candidate(
        decision("anchor", 0.0), accuracies=(accuracy(-0.1, 0.05),), evaluators=("sums",), promotion=wide
    )
    assert judge(allowed).outcome == "Promoted"


def test_an_evaluator_that_found_nothing_waits_and_says_why() -> None:
    why = {"accuracy.sums": "ContextTooShort: the longest prompt is 900 tokens"}
    ruling = judge(candidate(decision("anchor", 0.0), evaluators=("sums",), absent=why))
    assert (ruling.outcome, ruling.clause, ruling.final) == ("Waiting", "evaluators", False)
    assert "ContextTooShort" in ruling.message
    unasked = judge(candidate(decision("anchor", 0.0), evaluators=("sums",)))
    assert "spec.runID" in unasked.message


def test_a_revision_without_anything_before_it_cannot_be_inferior() -> None:
    judged = candidate(
        decision("anchor", -0.3, against="unigram"),
        accuracies=(accuracy(0.0, 0.0, against=None),),
        evaluators=("sums",),
        first=True,
    )
    assert judge(judged).outcome == "Promoted"
