"""Computes the columns PROGRESS and ETA. They are coarse on purpose: the status is written only when they change."""

from moe_formats.job_report import Progress
from moe_formats.resources.expert_status import TrainingStatus


def training_status(
    progress: Progress | None, *, attempt: int, before: TrainingStatus | None
) -> TrainingStatus | None:
    """Return the progress of a training attempt, for the status; None before the first.

    ``before`` is what the status has now. It is kept unchanged until the percentage or the ETA moves: step and loss
    change at every look and would cause a write each time.
    """
    if progress is None:
        # 100 % is left from the revision before.
        same = before is not None and before.attempt == attempt and before.summary != "100%"
        return before if same else TrainingStatus(attempt=attempt)
    summary, eta = percent(progress.step, progress.max_steps), eta_text(progress.eta_seconds)
    if before is not None and (before.attempt, before.summary, before.eta) == (attempt, summary, eta):
        return before
    return TrainingStatus(
        summary=summary,
        eta=eta,
        step=progress.step,
        max_steps=progress.max_steps,
        loss=progress.loss,
        bits_per_byte=progress.bits_per_byte,
        tokens_per_second=progress.tokens_per_second,
        attempt=attempt,
    )


def percent(step: int, steps: int) -> str:
    """Return whole percents, rounded down; an empty string while the number of steps is not known."""
    return f"{min(100 * step // steps, 100)}%" if steps > 0 else ""


def eta_text(seconds: float | None) -> str:
    """Return a duration in its largest unit, rounded so that it seldom changes; an empty string if it is not known."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{max(10 * round(seconds / 10), 5)}s"
    if seconds < 3600:
        return f"{round(seconds / 60)}m"
    if seconds < 36_000:
        return f"{seconds / 3600:.1f}h"
    return f"{round(seconds / 3600)}h"
