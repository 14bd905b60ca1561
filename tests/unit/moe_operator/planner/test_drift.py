"""Whether a revision has drifted, and which row of the table names the cause."""

import pytest

from moe_formats.job_report import Interval
from moe_formats.resources.drift import DriftStatus
from moe_formats.resources.reasons import Reason
from moe_operator.planner.drift import TABLE, Findings, cause_of, drift_says, has_drifted, is_up

FLAT = {"drifted": False, "harder": False, "domain_changed": False, "task_fell": False, "share_moved": False}


@pytest.mark.parametrize(
    ("moved", "cause"),
    [
        ({}, None),
        ({"drifted": True}, "QualityDrop"),
        ({"harder": True}, "InputShift"),
        ({"domain_changed": True}, "DomainChanged"),
        ({"task_fell": True}, "TaskDrop"),
        ({"share_moved": True}, "RoutingShift"),
        ({"drifted": True, "harder": True}, "QualityDrop"),
        ({"drifted": True, "task_fell": True, "share_moved": True}, "QualityDrop"),
        ({"drifted": True, "domain_changed": True}, "DomainChanged"),
        ({"harder": True, "task_fell": True}, "InputShift"),
        ({"task_fell": True, "share_moved": True}, "TaskDrop"),
    ],
)
def test_the_first_row_that_fires_names_the_cause(moved: dict[str, bool], cause: str | None) -> None:
    assert cause_of(Findings(**FLAT | moved)) == cause


@pytest.mark.parametrize("cause", [cause for cause, _ in TABLE])
def test_a_row_whose_input_is_absent_cannot_fire(cause: str) -> None:
    given = {
        "DomainChanged": "domain_changed",
        "QualityDrop": "drifted",
        "InputShift": "harder",
        "TaskDrop": "task_fell",
        "RoutingShift": "share_moved",
    }
    everything = dict.fromkeys(FLAT, True)
    if cause != "QualityDrop":
        everything["drifted"] = False
    assert cause_of(Findings(**everything | {given[cause]: None})) != cause
    assert cause_of(Findings()) is None


def test_what_is_only_the_case_while_drift_is_flat_needs_it_to_be_measured() -> None:
    assert cause_of(Findings(drifted=None, harder=True, task_fell=True, share_moved=True)) is None


def test_drift_is_up_only_beyond_one_percent_and_cleared_only_below_half_of_one() -> None:
    assert [is_up(bound) for bound in (None, 0.01, 0.0101, -1.0)] == [None, False, True, False]
    assert has_drifted(0.03, 0.011, None) is True
    assert has_drifted(0.03, 0.009, None) is False
    assert has_drifted(None, None, None) is None
    before = measured(drifted=True)
    assert has_drifted(0.03, 0.009, before) is True
    assert has_drifted(0.006, -0.02, before) is True
    assert has_drifted(0.004, -0.02, before) is False
    assert has_drifted(0.006, -0.02, measured(drifted=False)) is False


def test_the_condition_has_the_numbers_and_the_reason_of_the_cause() -> None:
    says = drift_says(measured(drifted=True, cause="QualityDrop"))
    assert (says.status, says.reason) == (True, Reason.QUALITY_DROP)
    assert "+0.0500 [+0.0300, +0.0700], lower bound +0.0200 at alpha 0.01, on 60 clusters" in says.message
    says = drift_says(measured(drifted=False))
    assert (says.status, says.reason) == (False, Reason.NOT_DRIFTED)


def test_a_drift_that_could_not_be_computed_is_unknown_with_its_reason() -> None:
    for why, reason in (
        ("HoldoutTooSmall: 12 clean clusters are held out", Reason.HOLDOUT_TOO_SMALL),
        ("TooFewWindows: 1 window", Reason.TOO_FEW_WINDOWS),
        ("something else", Reason.NOT_MEASURED),
    ):
        status = measured(drifted=False).model_copy(update={"interval": None, "absent": {"interval": why}})
        assert drift_says(status)[:2] == (None, reason)


def measured(*, drifted: bool, cause: str | None = None) -> DriftStatus:
    """Return a measurement with a drift of 5 %."""
    return DriftStatus.model_validate(
        {
            "drifted": drifted,
            "cause": cause,
            "interval": Interval(value=0.05, lower=0.03, upper=0.07, clusters=30),
            "lower_bound": 0.02,
            "revision": "code-2",
            "anchor": "sha256:" + "0" * 64,
            "windows": ["sha256:" + "1" * 64, "sha256:" + "2" * 64],
            "clusters": 60,
            "request": "code",
            "time": "2026-12-01T00:00:00+00:00",
        }
    )
