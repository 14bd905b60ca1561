"""Targets: how they are judged, and the columns that people read."""

import pytest

from moe_formats.job_report import Interval
from moe_formats.resources.expert import Targets
from moe_formats.resources.expert_status import Scores
from moe_operator.planner.targets import judge_targets, score_summary, targets_summary

SCORES = Scores(
    gain=Interval(value=0.2, lower=0.15, upper=0.25),
    specialization_score=Interval(value=0.97, lower=0.93, upper=0.99),
    bits_per_byte=Interval(value=2.0, lower=1.9, upper=2.1),
)


@pytest.mark.parametrize(
    ("targets", "met"),
    [
        (Targets(gain=0.15), [True]),
        (Targets(gain=0.16), [False]),
        (Targets(specialization_score=0.93), [True]),
        (Targets(specialization_score=0.95), [False]),
        (Targets(bits_per_byte=2.1), [True]),
        (Targets(bits_per_byte=2.05), [False]),
        (Targets(gain=0.1, bits_per_byte=2.0), [True, False]),
    ],
)
def test_the_unfavourable_end_of_the_interval_is_judged(targets: Targets, met: list[bool]) -> None:
    assert [result.met for result in judge_targets(targets, SCORES)] == met


def test_a_score_that_is_absent_leaves_its_target_open_unless_nothing_was_gained() -> None:
    targets = Targets(specialization_score=0.9)
    assert judge_targets(targets, Scores())[0].met is None
    gained_nothing = Scores(absent={"specializationScore": "NoGain: mean gain is not above delta"})
    assert judge_targets(targets, gained_nothing)[0].met is False


def test_the_columns_are_short() -> None:
    assert score_summary(SCORES, domain="code") == "0.97 [0.93, 0.99]"
    assert score_summary(SCORES, domain=None) == "2.00 bits/byte"
    assert score_summary(None, domain="code") == ""
    assert targets_summary(judge_targets(Targets(gain=0.1, bits_per_byte=2.0), SCORES)) == "1/2"
    assert targets_summary([]) == ""
