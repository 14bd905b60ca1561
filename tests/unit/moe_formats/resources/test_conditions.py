"""Conditions keep the time of their last change."""

from datetime import UTC, datetime, timedelta

from moe_formats.resources.conditions import ConditionType, condition, find_condition, merge_conditions
from moe_formats.resources.reasons import Reason

THEN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = THEN + timedelta(hours=1)


def test_a_condition_that_keeps_its_status_keeps_its_time() -> None:
    first = merge_conditions(
        (), [condition(ConditionType.READY, False, Reason.TRAINING, "", generation=1)], now=THEN
    )
    again = [condition(ConditionType.READY, False, Reason.EVALUATING, "next", generation=2)]
    (merged,) = merge_conditions(first, again, now=NOW)
    assert merged.last_transition_time == THEN
    assert (merged.reason, merged.message, merged.observed_generation) == ("Evaluating", "next", 2)


def test_a_condition_that_changes_its_status_gets_the_time_of_now_without_fractions() -> None:
    first = merge_conditions(
        (), [condition(ConditionType.READY, False, Reason.TRAINING, "", generation=1)], now=THEN
    )
    now = NOW.replace(microsecond=5)
    (merged,) = merge_conditions(
        first, [condition(ConditionType.READY, True, Reason.READY, "", generation=1)], now=now
    )
    assert merged.last_transition_time == NOW


def test_a_condition_that_is_no_longer_given_goes() -> None:
    first = merge_conditions(
        (), [condition(ConditionType.PAUSED, True, Reason.PAUSED, "", generation=1)], now=THEN
    )
    assert merge_conditions(first, [], now=NOW) == ()


def test_an_unknown_status_is_spelt_out() -> None:
    assert (
        condition(ConditionType.TARGETS_MET, None, Reason.TARGETS_UNKNOWN, "", generation=1).status
        == "Unknown"
    )


def test_a_message_is_cut_to_what_the_schema_takes() -> None:
    assert len(condition(ConditionType.READY, True, Reason.READY, "x" * 9000, generation=1).message) == 4096


def test_a_condition_is_found_by_its_type() -> None:
    ready = condition(ConditionType.READY, True, Reason.READY, "", generation=1)
    assert find_condition([ready], ConditionType.READY) is ready
    assert find_condition([ready], ConditionType.STALLED) is None
