"""What the status shows of a training run, coarsely enough not to be written all the time."""

import pytest

from moe_formats.job_report import Progress
from moe_formats.resources.expert_status import TrainingStatus
from moe_operator.planner.expert_status import eta_text, percent, training_status


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0, "5s"), (14, "10s"), (59, "60s"), (840, "14m"), (5400, "1.5h"), (90_000, "25h")],
)
def test_an_eta_is_coarse_and_absent_while_unknown(seconds: float | None, text: str) -> None:
    assert eta_text(seconds) == text


def test_percents_are_whole_and_never_early() -> None:
    assert (percent(999, 1000), percent(1000, 1000), percent(1, 0)) == ("99%", "100%", "")


def test_a_progress_that_shows_nothing_new_writes_nothing_new() -> None:
    first = training_status(Progress(step=100, max_steps=1000, loss=2.0), attempt=1, before=None)
    later = training_status(Progress(step=101, max_steps=1000, loss=1.9), attempt=1, before=first)
    assert later is first
    assert training_status(None, attempt=1, before=first) is first
    assert training_status(None, attempt=2, before=first) == TrainingStatus(attempt=2)
