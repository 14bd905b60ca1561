"""``moe-trainer drift``: how a revision does on its Expert's last windows, against the anchor.

    find the last windows → verify every digest → fill stale cells of the matrix → leave out tainted clusters → compute

Cells that evaluate Jobs have filled are reused, so usually only those of older windows are missing. A Job that was killed
and runs again reuses the cells that were filled, and writes the same report, byte for byte.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from moe_formats import store
from moe_formats.format import digest_of
from moe_formats.job_config import DriftJob, HoldoutRef
from moe_formats.job_report import DriftHeadline, Window
from moe_trainer.environment import Environment
from moe_trainer.evaluation.drift import DriftReport, Pair, Texts, last_windows, too_few, weigh
from moe_trainer.evaluation.report import committed_text, evaluation_path
from moe_trainer.evaluation.scores import Absent, Scored
from moe_trainer.evaluation.segments import scorer_version
from moe_trainer.evaluators.accuracy import Judged, weigh_answers
from moe_trainer.measurement import Cells, Measurement
from moe_trainer.snapshots.holdouts import read_windows


def run(job: DriftJob, environment: Environment) -> DriftHeadline:
    """Measure a revision, or return the headline of a measurement that was committed before.

    Raises JobError (ArtefactCorrupt) if a model, holdout or snapshot is gone or is not what its digest says.
    """
    windows = windows_of(job, environment.store)
    what = (
        f"drift {scorer_version(job.segment_bytes)} {job.to_json()} {[window.digest for window in windows]}"
    )
    path = evaluation_path(job.model.path, what)
    text = committed_text(environment.store, path, lambda: _report(job, windows, environment))
    return DriftReport.model_validate_json(text).headline(digest_of(text))


def windows_of(job: DriftJob, root: Path) -> list[Window]:
    """Return the windows to measure on, the oldest first."""
    listed = read_windows(root, store.windows(job.pool_uid, job.expert.uid))
    return last_windows(listed, job.anchor.digest, job.newest.digest)


def _report(job: DriftJob, windows: Sequence[Window], environment: Environment) -> DriftReport:
    scorer = scorer_version(job.segment_bytes)
    if (why := too_few(windows)) is not None:
        return DriftReport(
            job=job,
            scorer=scorer,
            device="",
            rows=(),
            windows=tuple(window.digest for window in windows),
            clusters=sum(window.clusters for window in windows),
            absent={"interval": why, "difficulty": why, "nearestDomain": why},
        )
    measurement = Measurement(job.pool_uid, job.segment_bytes, environment)
    last = [
        job.newest.model_copy(update={"path": window.path, "digest": window.digest}) for window in windows
    ]
    with ExitStack() as folders:
        holdouts = list({item.digest: item for item in (job.anchor, *last, *job.suite)}.values())
        measurement.open(folders, [job.model, job.base], holdouts, job.tasks)
        own = [job.anchor, *last]
        model, base = measurement.cells(job.model, own), measurement.cells(job.base, own)
        anchor, *pairs = (_pair(holdout, measurement, model, base) for holdout in own)
        texts = _texts(job, last, measurement)
        report = weigh(job, anchor, pairs, texts, scorer=scorer, device=measurement.matrix.device)
        return _with_accuracies(report, measurement)


def _with_accuracies(report: DriftReport, measurement: Measurement) -> DriftReport:
    """Return the report with what the evaluators find, or why they find nothing."""
    found, absent, model = [], dict(report.absent), report.job.model
    for tasks in report.job.tasks:
        try:
            answers = measurement.answers(model, tasks)
        except Absent as reason:
            absent[f"accuracy.{tasks.evaluator}"] = str(reason)
            continue
        if answers.right is None:
            absent[f"accuracy.{tasks.evaluator}"] = "a grader judges only the answers of new revisions"
        else:
            found.append(weigh_answers(tasks.evaluator, Judged(answers, answers.right), None, None))
    return report.model_copy(update={"accuracies": tuple(found), "absent": absent})


def _pair(holdout: HoldoutRef, measurement: Measurement, model: Cells, base: Cells) -> Pair:
    tainted = measurement.tainted(holdout)
    both = model[holdout.digest], base[holdout.digest]
    unreadable = frozenset(number for cell in both for number in cell.unreadable)
    ours, theirs = (Scored.clean(cell, tainted, unreadable) for cell in both)
    return Pair(digest=holdout.digest, model=ours, base=theirs, tainted=len(tainted))


def _texts(job: DriftJob, windows: Sequence[HoldoutRef], measurement: Measurement) -> Texts:
    segments = [segment for window in windows for segment in measurement.segments(window)]
    anchors = [job.anchor, *(item for item in job.suite if item.domain != job.expert.domain)]
    return Texts(
        windows=[segment.text for segment in segments],
        clusters=[segment.cluster for segment in segments],
        domains={
            str(anchor.domain): [segment.text for segment in measurement.segments(anchor)]
            for anchor in anchors
            if anchor.domain is not None
        },
    )
